"""The learning rate that a suggestion advises for its pick."""

from __future__ import annotations

from layerpick.calibration.predictors.rates import (
    KL_FEATURE,
    StoredRates,
    advised_rate,
    load_rates,
)
from layerpick.selector.prepare import Prepared
from layerpick.selector.suggestion.probing import Probed, kind_of
from layerpick.training.models.loading import LoadedModel

DIGITS = 2
"""Significant digits: it is no better known."""


def rates_for(model: LoadedModel) -> StoredRates | None:
    """What was learned of rates, where it is about models of this kind.

    Learned from pretrained models: for those made from scratch, whose folders name rates of their
    own, it says nothing.
    """
    return load_rates() if kind_of(model) == "pretrained" else None


def rate_of(pick: int, probed: Probed, prepared: Prepared) -> float | None:
    """By how far the probe `one_step` moved the pick; None where nothing is known of it."""
    rates, moved = rates_for(prepared.model), probed.features.get(KL_FEATURE)
    if rates is None or moved is None:
        return None
    rate = float(advised_rate(moved, probed.one_step_rate, rates.target)[pick])
    return float(f"{rate:.{DIGITS}g}")
