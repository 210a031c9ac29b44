"""What several targets have in common: LoRA's size, and checks of what they can adapt."""

from __future__ import annotations

import shlex

from layerpick.selector.export.plan import Plan
from layerpick.training.errors import LayerpickError

RANK, ALPHA = 32, 64
"""Of LoRA: rank and scale."""
LORA_NOTE = (
    "LoRA in the layer is not what layerpick measured, which is training the layer's own weights: "
    "norms and biases stay as they are, and a higher rate is usual."
)
LORA_RATE_FACTOR = 10
"""LoRA's usual rate over that of full training."""


def lora_rate(plan: Plan) -> float:
    """Learning rate for LoRA in the layers."""
    return float(f"{plan.learning_rate * LORA_RATE_FACTOR:.3g}")


def linear_names(plan: Plan) -> tuple[str, ...]:
    """Full names of the modules that LoRA adapts. Raises LayerpickError where there are none."""
    if not plan.names.linear:
        raise LayerpickError(
            f"The layers of {plan.model} hold no linear modules, so LoRA cannot adapt them: use "
            f"--to trl, which trains their own weights."
        )
    return plan.names.linear


def command(*parts: str) -> str:
    """A shell command, an option with its values on each line."""
    return " \\\n  ".join(parts) + "\n"


def quoted(*words: str) -> str:
    """Words as a shell reads them."""
    return " ".join(shlex.quote(word) for word in words)


def hydra_list(names: tuple[str, ...]) -> str:
    """A list in a Hydra or OmegaConf override."""
    return f"[{','.join(names)}]"
