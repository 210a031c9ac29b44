"""NeMo RL 0.8: NeMo Automodel's `target_modules`, as full names.

A name counts as it is; otherwise it is a pattern in which `*` stands for anything and dots for any
character, so nothing shorter than full names is safe. `match_all_linear` is on unless said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from layerpick.selector.export.plan import Plan, header
from layerpick.selector.export.targets.shared import (
    ALPHA,
    LORA_NOTE,
    RANK,
    linear_names,
    lora_rate,
)

WANTS_ROWS = False
MADE_FOR = "NeMo RL 0.8 (Automodel)"


def files(plan: Plan) -> Mapping[str, str]:
    """The part of a configuration that chooses the layers."""
    lora = {
        "enabled": True,
        "match_all_linear": False,
        "exclude_modules": [],
        "target_modules": list(linear_names(plan)),
        "dim": RANK,
        "alpha": ALPHA,
    }
    lines = [
        f"defaults: {json.dumps('grpo_math_1B.yaml')}",
        "grpo:",
        f"  num_prompts_per_step: {plan.prompts}",
        f"  num_generations_per_prompt: {plan.group_size}",
        f"  max_num_steps: {plan.steps}",
        "policy:",
        f"  model_name: {json.dumps(plan.model)}",
        "  optimizer:",
        f"    kwargs: {{lr: {lora_rate(plan):g}}}",
        "  automodel_cfg:",
        "    lora_cfg:",
        *(f"      {key}: {json.dumps(value)}" for key, value in lora.items()),
    ]
    notes = (
        "Put it beside examples/configs/grpo_math_1B.yaml, which it changes: "
        "uv run examples/run_grpo.py --config FILE.",
        "Before NeMo RL 0.8, automodel_cfg is called dtensor_cfg (with _v2: true).",
    )
    return {"lora.yaml": header(plan, MADE_FOR, *notes, LORA_NOTE) + "\n".join(lines) + "\n"}
