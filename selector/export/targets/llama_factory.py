"""LLaMA-Factory 0.9.5, which has no GRPO: its BAdam 1.4 trains one block in supervised training.

BAdam finds blocks by names with `layers.N.` in them, numbered as they come. Whenever it switches
blocks, be it to the same one, it forgets the state of Adam: the interval must be longer than the
run, and −1, which LLaMA-Factory gives as "never", is every step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from layerpick.selector.export.plan import Plan, header
from layerpick.training.errors import LayerpickError

WANTS_ROWS = False
MADE_FOR = "LLaMA-Factory 0.9.5 with BAdam 1.4"
NEVER = 1_000_000_000
"""Steps between switches."""
_BLOCK = re.compile(r".*layers\.[^.]+\.")
_NOTE = (
    "LLaMA-Factory has no GRPO. This is supervised training of the one layer: for completions that "
    "were chosen by their reward (rejection sampling), or to see what the layer does with plain "
    "fine-tuning. Add `dataset:` and `template:`; then: llamafactory-cli train FILE."
)


def files(plan: Plan) -> Mapping[str, str]:
    """A configuration for one layer, without data."""
    if len(plan.names.layers) > 1:
        raise LayerpickError("BAdam trains one block at a time: export one layer (--layer K).")
    values = {
        "model_name_or_path": plan.model,
        **({"model_revision": plan.revision} if plan.revision else {}),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "pure_bf16": True,
        "use_badam": True,
        "badam_mode": "layer",
        "badam_switch_mode": "fixed",
        "badam_start_block": _block(plan),
        "badam_switch_interval": NEVER,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": "constant",
        "max_steps": plan.steps,
        "output_dir": "trained",
    }
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
    return {"badam.yaml": header(plan, MADE_FOR, _NOTE) + lines}


def _block(plan: Plan) -> int:
    """The number that BAdam gives to the layer."""
    blocks = list(
        dict.fromkeys(
            found[0] for name in plan.names.parameters if (found := _BLOCK.match(name)) is not None
        )
    )
    (prefix,) = plan.names.prefixes
    if prefix not in blocks:
        raise LayerpickError(
            f"BAdam finds no block {prefix} in {plan.model}: it looks for names with 'layers.N.'."
        )
    return blocks.index(prefix)
