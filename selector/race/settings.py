"""What a person can choose about a race."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from typer import Option


@dataclass(frozen=True)
class RaceChoice:
    """How long the candidates run side by side."""

    panel: ClassVar[str] = "Race"

    race_budget: Annotated[float, Option(min=1.0)] = 2.5
    """What a race may cost in the mean, in single-layer runs. How many arms set out, and when they
    leave, is learned from stored sweeps for it."""
    arms: Annotated[int | None, Option(min=2)] = None
    """How many layers set out; learned for the budget if left out."""
    learning_rate: Annotated[float | None, Option(min=0)] = None
    """AdamW's rate; the model's own, or one by its size, if left out."""
    checkpoint_every: Annotated[int, Option(min=1)] = 10
    """Steps between checkpoints."""
