"""What a pick loses against the best layer: stated, and learned from what earlier picks lost.

Draws of all layers say how far the best of them is expected above the pick. They take every
layer's error for a chance to be better, more than it turns out to be, so what they state is scaled
to what picks of left-out sweeps lost in truth, measured with the same noise. These have no say in
the choice of the regressor either: with one they lose half as much. The pick asked about counts as
one more, at its draws' word: a few picks that lost nothing promise nothing. The bound is split
conformal (Lei et al. 2018, arXiv 1604.04173): the quantile of what was lost as a multiple of what
was stated. Every model (or data set, where models are few) has the same say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerpick.calibration.judging.metrics import regret

HELD = 0.8
"""Share of picks that should lose no more than the bound."""
SHORTLISTED = 0.8
"""Chance that the best layer is in the shortlist."""
LEAST_STATED = 0.01
"""Stated losses below count as this, lest a sure pick that was wrong make every bound infinite."""


@dataclass(frozen=True)
class PastPick:
    """A pick whose loss has been measured, by a predictor that did not know its sweep."""

    stated: float
    """By draws."""
    lost: float
    """In contribution."""
    group: str
    """What is alike: the model, or the data set."""
    layers: int
    """Layers that were measured."""

    @classmethod
    def of(
        cls, predicted: np.ndarray, draws: np.ndarray, measured: np.ndarray, group: str
    ) -> PastPick:
        """From predicted and measured contributions (layers,), and draws (draws, layers)."""
        stated = stated_loss(draws, int(predicted.argmax()))
        return cls(stated, regret(measured, predicted), group, len(measured))


@dataclass(frozen=True)
class LossScale:
    """From the loss that draws state to the loss expected and its bound."""

    expected: float = 1.0
    bound: float = 1.0
    layers: int | None = None
    """Most layers of a past pick's sweep; draws of more are thinned to these before they state."""


AS_DRAWN = LossScale()
"""Where nothing is known of earlier picks."""


def stated_loss(draws: np.ndarray, pick: int) -> float:
    """How far the best layer of each draw (draws, layers) is above the pick, in the mean."""
    return float((draws.max(axis=1) - draws[:, pick]).mean())


def thinned(draws: np.ndarray, pick: int, most: int | None) -> tuple[np.ndarray, int]:
    """Draws (draws, layers) of at most `most` layers spread evenly, and of the pick; its place.

    Neighbours are alike and draws are not: the best of many draws is further above the pick than
    that of the few layers which a sweep has measured.
    """
    count = draws.shape[1]
    if most is None or count <= most:
        return draws, pick
    kept = np.unique([pick, *np.linspace(0, count - 1, most).round().astype(int)])
    return draws[:, kept], int(np.searchsorted(kept, pick))


def learn_scale(past: Sequence[PastPick]) -> LossScale:
    """The scale that past picks call for; draws are taken at their word without any."""
    if not past:
        return AS_DRAWN
    stated = np.array([max(pick.stated, LEAST_STATED) for pick in past])
    lost = np.array([pick.lost for pick in past])
    _, own, counts = np.unique(
        [pick.group for pick in past], return_inverse=True, return_counts=True
    )
    weights = 1 / counts[own]
    ratios = lost / stated
    order = np.argsort(ratios)
    groups = weights.sum()
    # The pick asked about has a vote too, and is thought the worst.
    reached = np.cumsum(weights[order]) / (groups + 1)
    at = min(int(np.searchsorted(reached, HELD)), len(past) - 1)
    # It is also thought to lose what its draws state: where few picks are known, they say little.
    shrunk = (weights @ lost / (weights @ stated) * groups + 1) / (groups + 1)
    return LossScale(
        expected=float(shrunk),
        bound=float(ratios[order[at]]),
        layers=max(pick.layers for pick in past),
    )


def shortlist(chance_best: np.ndarray) -> tuple[int, ...]:
    """The fewest layers that hold the best one with a chance of `SHORTLISTED`, likeliest first.

    chance_best (layers,) sums to 1.
    """
    order = np.argsort(-chance_best, kind="stable")
    enough = int(np.searchsorted(np.cumsum(chance_best[order]), SHORTLISTED - 1e-9)) + 1
    return tuple(order[:enough].tolist())
