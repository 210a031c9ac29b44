"""Which layers a dear level still measures, and how its prediction joins the one before.

Successive halving: after every level at most half of the layers that it measured go on to the next
one whose probes are dear by layer. A layer that has left keeps its place among the others: how far
its earlier prediction lay from that of those that went on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from layerpick.calibration.predictors.base import Prediction

OUT_OF_THE_QUESTION = 0.02
"""Chances of being best that together are given up."""
FEWEST = 2
"""Layers that are always kept."""


def most_kept(layers: int) -> int:
    """How many of so many layers may go on."""
    return max(FEWEST, ceil(layers / 2))


def still_possible(prediction: Prediction, among: Sequence[int] | None = None) -> tuple[int, ...]:
    """Layers, of those `among`, that can still be best: at most half, in order of depth.

    The others' chances of being best together stay below `OUT_OF_THE_QUESTION`, unless that would
    keep more than half.
    """
    asked = np.arange(len(prediction.chance_best)) if among is None else np.array(among)
    chances = prediction.chance_best[asked]
    order = asked[np.argsort(-chances, kind="stable")]
    sums = np.cumsum(prediction.chance_best[order]) / max(chances.sum(), 1e-12)
    enough = int(np.searchsorted(sums, 1 - OUT_OF_THE_QUESTION)) + 1
    kept = max(FEWEST, min(enough, most_kept(len(order))))
    return tuple(sorted(order[:kept].tolist()))


def join(before: Prediction, after: Prediction, kept: Sequence[int] | None) -> Prediction:
    """`after` for the layers kept (all if None), `before` for the layers that have left.

    The latter move by what the mean of the former has moved, and none is predicted above the best
    of these. Chances of the kept are those of `after`, scaled to what `before` gave them together.
    """
    if kept is None:
        return after
    chosen = np.isin(np.arange(len(after.contribution)), kept)
    moved = float((after.contribution - before.contribution)[chosen].mean())
    best = float(after.contribution[chosen].max())
    # Not equal to it either: the pick is the first of the highest.
    excess = np.maximum(before.contribution + moved - np.nextafter(best, -np.inf), 0.0)
    chances = np.where(chosen, after.chance_best, 0.0)
    share, total = before.chance_best[chosen].sum(), chances.sum()
    chances = np.where(chosen, chances * share / total if total else 0.0, before.chance_best)

    def of(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return np.where(chosen, new, old + moved - excess)

    return replace(
        after,
        contribution=of(after.contribution, before.contribution),
        low=of(after.low, before.low),
        high=of(after.high, before.high),
        chance_best=chances / chances.sum(),
        draws=_join_draws(before.draws, after.draws, chosen),
    )


def _join_draws(
    before: np.ndarray | None, after: np.ndarray | None, chosen: np.ndarray
) -> np.ndarray | None:
    """Draw by draw, what has left keeps its distance from the mean of the chosen layers."""
    if before is None or after is None or len(before) != len(after):
        return None
    moved = (after - before)[:, chosen].mean(axis=1, keepdims=True)
    return np.where(chosen, after, before + moved)
