"""How much a person is willing to spend on a suggestion."""

from __future__ import annotations

from dataclasses import dataclass

from layerpick.training.errors import LayerpickError

DEFAULT = "10"
"""Minutes."""
SWEEP_EPISODES = 60 * 128
"""Of one run of a sweep, at `layerpick sweep`'s own steps, prompts and group size."""


@dataclass(frozen=True)
class Spending:
    """What a person is willing to spend, and when to stop earlier."""

    amount: float
    """Minutes, or a share of a sweep's time."""
    is_share: bool
    confidence: float = 1.0
    """Chance of being best that is certain enough."""

    def seconds(self, layers: int, episodes: int, step_seconds: float) -> float:
        """In seconds, sampling included; a step of training on `episodes` takes `step_seconds`."""
        if not self.is_share:
            return 60 * self.amount
        return self.amount * (layers + 1) * SWEEP_EPISODES / episodes * step_seconds


def read_budget(text: str, confidence: float = 1.0) -> Spending:
    """`10` (minutes) or `5%` (of the time of a sweep). Raises LayerpickError for anything else."""
    number = text.removesuffix("%")
    try:
        amount = float(number)
    except ValueError:
        amount = 0.0
    if not 0 < amount < float("inf"):
        raise LayerpickError(
            f"--budget '{text}' is neither minutes, as 10, nor a share of a sweep's time, as 5%."
        )
    share = number != text
    return Spending(amount / 100 if share else amount, share, confidence)
