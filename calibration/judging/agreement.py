"""Do sweeps rank layers alike? Rank correlations between sweeps, beside what noise allows.

Sweeps of one model are compared layer by layer. Those of different models are compared by relative
depth: at the depths of the sweep with fewer measured layers, the other's scores are interpolated
linearly; depths outside its range do not count.

Noise ceiling. With r the mean rank correlation between single seeds of a sweep, a repetition of all
its S seeds correlates with it as R = S r / (1 + (S − 1) r) (Spearman, 1910; Brown, 1910). Two
sweeps with the same true ranking reach about √(R_1 R_2) (Spearman, 1904).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from layerpick.calibration.judging.metrics import spearman
from layerpick.calibration.sweeps.population import Population

FEWEST_POINTS = 3
"""Layers or depths in common without which two sweeps are not compared."""

Difference = Literal["settings", "algorithm", "task", "model", "family"]
DIFFERENCES: Mapping[Difference, str] = {
    "settings": "settings alone",
    "algorithm": "algorithm",
    "task": "task or data",
    "model": "model, of one family",
    "family": "family",
}
"""What tells two sweeps apart, the first that holds from below; in words."""


@dataclass(frozen=True, eq=False)
class RankedSweep:
    """What one sweep says of the order of layers."""

    name: str
    model: str
    """Identity of the model: its weights' hash, or a published one's name."""
    family: str | None
    population: Population
    task: str
    data: str
    """Identity of the data."""
    algorithm: str
    layers: np.ndarray
    """(measured,), int64: their numbers, ascending."""
    depths: np.ndarray
    """(measured,), float64: relative depth in [0, 1]."""
    scores: np.ndarray
    """(measured,), float64."""
    ceiling: float | None
    """Rank correlation of a repetition with all its seeds; None where it is unknown."""


@dataclass(frozen=True)
class Agreement:
    """How alike two sweeps rank."""

    rho: float
    points: int
    """Layers or depths compared."""
    ceiling: float | None
    difference: Difference


@dataclass(frozen=True)
class Summary:
    """Mean agreement of several pairs."""

    rho: float
    """Weighted by points − 1, the inverse variance of ρ between rankings that have nothing to do
    with each other."""
    error: float | None
    """Standard error: models left out one at a time (jackknife); None with fewer than three."""
    ceiling: float | None
    """Mean over the pairs that have one, weighted alike."""
    rho_with_ceiling: float | None
    """ρ of these pairs alone."""
    pairs: int
    models: int


Pair = tuple[int, int]


def stepped_up(correlation: float, seeds: int) -> float:
    """R = S r / (1 + (S − 1) r): of means over S seeds, from r between single ones; at least 0."""
    positive = max(0.0, correlation)
    return seeds * positive / (1 + (seeds - 1) * positive)


def agree(first: RankedSweep, second: RankedSweep) -> Agreement | None:
    """Compare two sweeps; None where they have too few layers or depths in common."""
    one, other = _paired(first, second)
    if len(one) < FEWEST_POINTS:
        return None
    known = first.ceiling is not None and second.ceiling is not None
    return Agreement(
        rho=spearman(one, other),
        points=len(one),
        ceiling=float(np.sqrt((first.ceiling or 0.0) * (second.ceiling or 0.0))) if known else None,
        difference=_difference(first, second),
    )


def agreements(sweeps: Sequence[RankedSweep]) -> dict[Pair, Agreement]:
    """Of every two sweeps, by their places, the smaller first."""
    pairs = combinations(range(len(sweeps)), 2)
    found = {pair: agree(sweeps[pair[0]], sweeps[pair[1]]) for pair in pairs}
    return {pair: each for pair, each in found.items() if each is not None}


def summarise(
    sweeps: Sequence[RankedSweep], found: Mapping[Pair, Agreement]
) -> dict[tuple[Difference, str], Summary]:
    """Mean agreement by what tells the pair apart and by its population, or `mixed`."""
    groups: dict[tuple[Difference, str], dict[Pair, Agreement]] = {}
    for pair, each in found.items():
        kinds = {sweeps[place].population for place in pair}
        population = kinds.pop() if len(kinds) == 1 else "mixed"
        groups.setdefault((each.difference, population), {})[pair] = each
    return {key: _summary(sweeps, group) for key, group in groups.items()}


def _summary(sweeps: Sequence[RankedSweep], group: Mapping[Pair, Agreement]) -> Summary:
    models = {pair: {sweeps[place].model for place in pair} for pair in group}
    everyone = set.union(*models.values())
    left_out = [
        _mean([each for pair, each in group.items() if model not in models[pair]])
        for model in everyone
    ]
    usable = np.array([value for value in left_out if value is not None])
    scatter = usable.var() * (len(usable) - 1) if len(usable) > 2 else None
    bounded = [each for each in group.values() if each.ceiling is not None]
    ceilings = [each.ceiling or 0.0 for each in bounded]
    return Summary(
        rho=_mean(list(group.values())) or 0.0,
        error=None if scatter is None else float(np.sqrt(scatter)),
        ceiling=float(np.average(ceilings, weights=_weights(bounded))) if bounded else None,
        rho_with_ceiling=_mean(bounded),
        pairs=len(group),
        models=len(everyone),
    )


def _mean(group: Sequence[Agreement]) -> float | None:
    if not group:
        return None
    return float(np.average([each.rho for each in group], weights=_weights(group)))


def _weights(group: Sequence[Agreement]) -> list[int]:
    return [each.points - 1 for each in group]


def _paired(first: RankedSweep, second: RankedSweep) -> tuple[np.ndarray, np.ndarray]:
    """Scores of both in the same places, each (points,)."""
    if first.model == second.model:
        _, one, other = np.intersect1d(first.layers, second.layers, return_indices=True)
        return first.scores[one], second.scores[other]
    if len(first.layers) > len(second.layers):
        return _paired(second, first)[::-1]
    inside = (first.depths >= second.depths.min()) & (first.depths <= second.depths.max())
    at = first.depths[inside]
    return first.scores[inside], np.interp(at, second.depths, second.scores)


def _difference(first: RankedSweep, second: RankedSweep) -> Difference:
    if first.model != second.model:
        return "model" if first.family == second.family is not None else "family"
    if (first.task, first.data) != (second.task, second.data):
        return "task"
    return "settings" if first.algorithm == second.algorithm else "algorithm"
