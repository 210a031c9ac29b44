"""Which layers a dear level still measures, and how its prediction joins the one before.

Before every level whose probes are dear by layer those leave that cannot be best any more. A layer
that has left keeps its place among the others: how far its earlier prediction lay from that of
those that went on. Leaving earlier loses more than it saves: see docs/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from layerpick.calibration.predictors.base import Prediction

OUT_OF_THE_QUESTION = 0.02
"""Chances of being best that together are given up."""
FEWEST = 2
"""Layers that are always kept."""


def still_possible(prediction: Prediction, among: Sequence[int] | None = None) -> tuple[int, ...]:
    """Layers, of those `among`, that can still be best, in order of depth.

    The others' chances of being best together stay below `OUT_OF_THE_QUESTION`.
    """
    chance_best = prediction.chance_best
    asked = np.arange(len(chance_best)) if among is None else np.array(among)
    order = asked[np.argsort(-chance_best[asked], kind="stable")]
    sums = np.cumsum(chance_best[order]) / max(float(chance_best[asked].sum()), 1e-12)
    enough = int(np.searchsorted(sums, 1 - OUT_OF_THE_QUESTION)) + 1
    return tuple(sorted(order[: max(FEWEST, enough)].tolist()))


def join(before: Prediction, after: Prediction, kept: Sequence[int] | None) -> Prediction:
    """`after` for the layers kept (all if None), `before` for the layers that have left.

    The latter move by what the mean of the former has moved, draw by draw too, and none is
    predicted above the best of these. Both predictions need as many draws.
    """
    if kept is None:
        return after
    chosen = np.isin(np.arange(len(after.contribution)), kept)
    moved = float((after.contribution - before.contribution)[chosen].mean())
    best = float(after.contribution[chosen].max())
    # Not equal to it either: the pick is the first of the highest.
    excess = np.maximum(before.contribution + moved - np.nextafter(best, -np.inf), 0.0)
    drawn = (after.draws - before.draws)[:, chosen].mean(axis=1, keepdims=True)

    def of(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return np.where(chosen, new, old + moved - excess)

    return replace(
        after,
        contribution=of(after.contribution, before.contribution),
        low=of(after.low, before.low),
        high=of(after.high, before.high),
        draws=np.where(chosen, after.draws, before.draws + drawn - excess),
    )
