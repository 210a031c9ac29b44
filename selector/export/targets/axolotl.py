"""Axolotl 0.19: `unfrozen_parameters` for the layers themselves, PEFT's layer options for LoRA.

Its patterns are matched from the beginning of a parameter's name, with every dot taken literally
(but for `.+`): escaped dots match nothing, and without a dot at the end layer 1 is also 10 to 19.
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
MADE_FOR = "Axolotl 0.19"
_YOURS = "Add your `datasets:` and, under `trl:`, your `reward_funcs:`; then: axolotl train FILE."


def files(plan: Plan) -> Mapping[str, str]:
    """Two configurations, without data and reward."""
    linear_names(plan)
    patterns = [f"^{prefix}" for prefix in plan.names.prefixes]
    full = {"unfrozen_parameters": patterns, "learning_rate": plan.learning_rate}
    lora = {
        "adapter": "lora",
        "lora_r": RANK,
        "lora_alpha": ALPHA,
        "lora_target_modules": list(plan.names.leaves),
        "peft_layers_to_transform": list(plan.names.layers),
        "peft_layers_pattern": [plan.names.path],
        **({"lora_fan_in_fan_out": True} if plan.names.transposed else {}),
        "learning_rate": lora_rate(plan),
    }
    return {
        "axolotl.yaml": header(plan, MADE_FOR, _YOURS) + _yaml(plan, full),
        "axolotl-lora.yaml": header(plan, MADE_FOR, _YOURS, LORA_NOTE) + _yaml(plan, lora),
    }


def _yaml(plan: Plan, chosen: Mapping[str, object]) -> str:
    """YAML whose values are JSON, which YAML includes."""
    values: dict[str, object] = {
        "base_model": plan.model,
        **({"revision_of_model": plan.revision} if plan.revision else {}),
        **chosen,
        "rl": "grpo",
        "trl": {
            "num_generations": plan.group_size,
            "max_completion_length": plan.max_new_tokens,
            "temperature": plan.temperature,
        },
        "max_steps": plan.steps,
        "micro_batch_size": plan.prompts * plan.group_size,
        "gradient_accumulation_steps": 1,
        "lr_scheduler": "constant",
        "optimizer": "adamw_torch",
        "bf16": "auto",
        "gradient_checkpointing": True,
        # The other kind lets the frozen layers below require gradients.
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "output_dir": "trained",
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
