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
    grid = rates_of_size(sum(parameter.numel() for parameter in model.model.parameters()))
    more = rates == "own" and grid == RATES_OF_LARGE_MODELS
    return (*grid, HIGHER_RATE) if more else grid


def rates_of_size(parameters: int) -> tuple[float, ...]:
    """Learning rates to choose from for a model of so many parameters."""
    sizes = (rates for limit, rates in RATES_BY_SIZE if parameters < limit)
    return next(sizes, RATES_OF_LARGE_MODELS)


def usual_rate(parameters: int) -> float:
    """The middle one of a model's rates, the lower of two."""
    rates = rates_of_size(parameters)
    return rates[(len(rates) - 1) // 2]
