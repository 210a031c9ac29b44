"""What is affordable: sets of probes, from cheap to dear, each with a predictor of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from layerpick.training.errors import LayerpickError

T = TypeVar("T")


@dataclass(frozen=True)
class Level:
    """A set of probes that a predictor learns from."""

    name: str
    about: str
    probes: tuple[str, ...]
    rollouts: bool = True
    """Whether its probes read rollouts, which then count among its costs."""
    unused: tuple[str, ...] = ()
    """How the names of features begin that its probes measure and it makes no use of."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """By probe: the part of its stored cost that the features in use need, where not all."""
    narrowed: bool = False
    """Whether what it adds is dear by layer, so that layers that cannot be best are left out."""

    def used(self, features: Mapping[str, T]) -> dict[str, T]:
        """Those of a probe's features that the level makes use of."""
        return {name: v for name, v in features.items() if not name.startswith(self.unused)}

    def part(self, probe: str, features: Mapping[str, T]) -> float:
        """The part of a probe's cost that the level needs, given what the probe measured."""
        needed_all = len(self.used(features)) == len(features)
        return 1.0 if needed_all else self.parts.get(probe, 1.0)


_WEIGHTS = ("weights",)
_BACKWARD = (*_WEIGHTS, "hidden", "gradient")
_ONE_STEP = (*_BACKWARD, "one_step")
_OFF_POLICY = (*_ONE_STEP, "off_policy")
_ON_POLICY = (*_OFF_POLICY, "warm_up")

FIRST = "backward"
"""The level that `layerpick suggest` always measures."""
WORTH = 0.01
"""Least gain in ρ − regret, on what was left out, for which a dearer level is measured."""

EPISODES_OF_A_STEP, EPISODES_OF_A_JUDGEMENT = 64, 128
"""Of the warm-up beside the stored sweeps."""


def _episodes(judged_after: Sequence[int]) -> int:
    trained = EPISODES_OF_A_STEP * max(judged_after)
    return trained + EPISODES_OF_A_JUDGEMENT * len(judged_after)


WARM_UP_PART = _episodes((5,)) / _episodes((5, 10, 20))
"""What the features of five steps need of a warm-up of twenty."""


LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level("weights", "the weight files only", _WEIGHTS, rollouts=False),
        Level("backward", "forward and backward passes over the rollouts", _BACKWARD),
        Level("one_step", "one long step of training on the same rollouts", _ONE_STEP),
        Level(
            "off_policy",
            "five long steps of training on the same rollouts",
            _OFF_POLICY,
            narrowed=True,
        ),
        Level(
            "on_policy",
            "five steps of RL, sampling anew",
            _ON_POLICY,
            unused=("warm_up_10_", "warm_up_20_"),
            parts={"warm_up": WARM_UP_PART},
            narrowed=True,
        ),
    )
}
"""From cheap to dear; each has the probes of the one before."""


def worth_measuring(criteria: Mapping[str, float]) -> list[Level]:
    """The levels after the first that rank better than every cheaper one, from cheap to dear.

    `criteria` by level are those that their lessons were chosen by; levels without one are unknown.
    """
    best, found = criteria.get(FIRST, -math.inf), []
    levels = list(LEVELS.values())
    for level in levels[levels.index(LEVELS[FIRST]) + 1 :]:
        criterion = criteria.get(level.name, -math.inf)
        if criterion > best + WORTH:
            found.append(level)
        best = max(best, criterion)
    return found


def find_level(name: str) -> Level:
    """The level of that name. Raises LayerpickError if there is none."""
    if name not in LEVELS:
        raise LayerpickError(f"The level '{name}' is unknown: use {', '.join(LEVELS)}.")
    return LEVELS[name]
