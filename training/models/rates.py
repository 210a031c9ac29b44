"""Learning rates to try on a model that names none of its own."""

from __future__ import annotations

from layerpick.training.models.loading import LoadedModel
from layerpick.training.sweeps.records import Rates

RATES_BY_SIZE = ((10_000_000, (2e-4, 5e-4, 1e-3)), (50_000_000, (5e-5, 1e-4, 3e-4)))
RATES_OF_LARGE_MODELS = (1e-5, 3e-5)
HIGHER_RATE = 1e-4
"""Added where each policy has its own rate: one layer stands more than a whole large model."""


def default_rates(model: LoadedModel, rates: Rates = "shared") -> tuple[float, ...]:
    """Learning rates to choose from, by the model's size: larger models want smaller ones."""
    size = sum(parameter.numel() for parameter in model.model.parameters())
    large = RATES_OF_LARGE_MODELS + ((HIGHER_RATE,) if rates == "own" else ())
    return next((grid for limit, grid in RATES_BY_SIZE if size < limit), large)
