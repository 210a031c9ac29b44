"""Unsloth 2026.10: `get_peft_model` passes the layer options on to PEFT.

They are a list, for a single number 0 was dropped by PEFT before 0.21.
"""

from __future__ import annotations

from collections.abc import Mapping

from layerpick.selector.export.plan import Plan, header
from layerpick.selector.export.targets.shared import ALPHA, LORA_NOTE, RANK, linear_names

WANTS_ROWS = False
MADE_FOR = "Unsloth 2026.10"
_SCRIPT = """\
from unsloth import FastLanguageModel

model, tokenizer = FastLanguageModel.from_pretrained({model!r}, revision={revision!r})
model = FastLanguageModel.get_peft_model(
    model,
    r={rank},
    lora_alpha={alpha},
    target_modules={leaves!r},
    layers_to_transform={layers!r},
    layers_pattern={path!r},
)
"""


def files(plan: Plan) -> Mapping[str, str]:
    """The beginning of a script: model, tokenizer and adapter."""
    linear_names(plan)
    text = _SCRIPT.format(
        model=plan.model,
        revision=plan.revision,
        rank=RANK,
        alpha=ALPHA,
        leaves=list(plan.names.leaves),
        layers=list(plan.names.layers),
        path=plan.names.path,
    )
    note = "Give `model` and `tokenizer` to TRL's GRPOTrainer, as in Unsloth's notebooks."
    return {"lora.py": header(plan, MADE_FOR, note, LORA_NOTE) + text}
