"""What is affordable: sets of probes, from cheap to dear, each with a predictor of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from layerpick.training.errors import LayerpickError


@dataclass(frozen=True)
class Level:
    """A set of probes that a predictor learns from."""

    name: str
    about: str
    probes: tuple[str, ...]
    rollouts: bool = True
    """Whether its probes read rollouts, which then count among its costs."""


_WEIGHTS = ("weights",)
_BACKWARD = (*_WEIGHTS, "hidden", "bypass", "gradient", "curvature", "attribution")
_OFF_POLICY = (*_BACKWARD, "one_step", "off_policy")
_ON_POLICY = (*_OFF_POLICY, "warm_up")

LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level("weights", "the weight files only", _WEIGHTS, rollouts=False),
        Level("backward", "forward and backward passes over the rollouts", _BACKWARD),
        Level("off_policy", "short training on the same rollouts", _OFF_POLICY),
        Level("on_policy", "short RL, sampling anew", _ON_POLICY),
    )
}
"""From cheap to dear; each has the probes of the one before."""


def best_level(measured: Collection[str]) -> Level | None:
    """The dearest level all of whose probes were measured, or None."""
    possible = [level for level in LEVELS.values() if set(level.probes) <= set(measured)]
    return possible[-1] if possible else None


def find_level(name: str) -> Level:
    """The level of that name. Raises LayerpickError if there is none."""
    if name not in LEVELS:
        raise LayerpickError(f"The level '{name}' is unknown: use {', '.join(LEVELS)}.")
    return LEVELS[name]
