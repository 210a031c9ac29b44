"""PEFT 0.21: a `LoraConfig` for linear modules by the ends of their names, in some layers only.

`layers_to_transform` counts only while `target_modules` is a list of such ends; PEFT refuses it
with a pattern, and passes it over for full names.
"""

from __future__ import annotations

from collections.abc import Mapping

from layerpick.selector.export.plan import Plan, header
from layerpick.selector.export.targets.shared import ALPHA, LORA_NOTE, RANK, linear_names

WANTS_ROWS = False
MADE_FOR = "PEFT 0.21"
_CONFIG = """\
from peft import LoraConfig

LORA = LoraConfig(
    task_type="CAUSAL_LM",
    r={rank},
    lora_alpha={alpha},
    target_modules={leaves!r},
    layers_to_transform={layers!r},
    layers_pattern={path!r},{transposed}
)
"""


def files(plan: Plan) -> Mapping[str, str]:
    """A module with one LoraConfig in it."""
    linear_names(plan)
    text = _CONFIG.format(
        rank=RANK,
        alpha=ALPHA,
        leaves=list(plan.names.leaves),
        layers=list(plan.names.layers),
        path=plan.names.path,
        transposed="\n    fan_in_fan_out=True," if plan.names.transposed else "",
    )
    note = "For any trainer with a peft_config: from lora import LORA."
    return {"lora.py": header(plan, MADE_FOR, note, LORA_NOTE) + text}
