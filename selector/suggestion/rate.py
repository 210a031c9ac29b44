"""The learning rate that a suggestion advises for its pick."""

from __future__ import annotations

from layerpick.calibration.predictors.rates import KL_FEATURE, advised_rate, load_rates
from layerpick.selector.prepare import Prepared
from layerpick.selector.suggestion.probing import Probed, kind_of

DIGITS = 2
"""Significant digits: it is no better known."""


def rate_of(pick: int, probed: Probed, prepared: Prepared) -> float | None:
    """By how far the probe `one_step` moved the pick; None where nothing is known of it.

    Learned from pretrained models: for those made from scratch, whose folders name rates of their
    own, it says nothing.
    """
    rates, moved = load_rates(), probed.features.get(KL_FEATURE)
    if rates is None or moved is None or kind_of(prepared.model) != "pretrained":
        return None
    rate = float(advised_rate(moved, probed.one_step_rate, rates.target)[pick])
    return float(f"{rate:.{DIGITS}g}")
