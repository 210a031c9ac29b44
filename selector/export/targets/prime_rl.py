"""prime-rl: `target_modules` with a dot in them are patterns, found anywhere in a module's name.

Hence the anchors at both ends.
"""

from __future__ import annotations

import json
import re
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
MADE_FOR = "prime-rl (configs/basic, 2026)"


def files(plan: Plan) -> Mapping[str, str]:
    """The part of a configuration that chooses the layers."""
    patterns = [f"^{re.escape(name)}$" for name in linear_names(plan)]
    lines = [
        f"max_steps = {plan.steps}",
        "",
        "[model]",
        f"name = {json.dumps(plan.model)}",
        "",
        "[trainer.model.lora]",
        f"rank = {RANK}",
        f"alpha = {ALPHA}",
        f"target_modules = {json.dumps(patterns)}",
        "",
        "[trainer.optim]",
        f"lr = {lora_rate(plan)!r}",
        "",
        "[orchestrator]",
        f"batch_size = {plan.prompts * plan.group_size}",
        f"group_size = {plan.group_size}",
        "",
        "[orchestrator.train.sampling]",
        f"max_completion_tokens = {plan.max_new_tokens}",
    ]
    note = "Add [[orchestrator.train.env]] and [deployment]; then: uv run rl @ FILE."
    return {"rl.toml": header(plan, MADE_FOR, note, LORA_NOTE) + "\n".join(lines) + "\n"}
