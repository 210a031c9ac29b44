"""What a predictor is: features of each layer → contribution, interval, chance of being best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from layerpick.calibration.sweeps.population import Population
from layerpick.training.sweeps.records import Rates


@dataclass(frozen=True)
class LayerFeatures:
    """What is known of the layers of one model × task × algorithm before any training."""

    depth: np.ndarray
    """(layers,), float64: relative depth in [0, 1]."""
    probes: Mapping[str, np.ndarray]
    """Features by name, each (layers,), float64."""
    base_reward: float | None = None
    """Mean reward of the rollouts, if any were sampled."""
    population: Population = "pretrained"
    """Which models teach most about this one."""


@dataclass(frozen=True)
class Prediction:
    """Predicted contributions, all of shape (layers,), float64."""

    contribution: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance_best: np.ndarray
    """Sums to 1."""
    coverage: float
    """Share of the measured contributions that the interval is meant to hold."""
    basis: str
    """What the prediction rests on, in words."""
    rates: tuple[Rates, ...] = ()
    """Kinds of the sweeps learned from: at a shared learning rate, or each policy at its own."""


class Predictor(ABC):
    """A regressor fitted on measured sweeps.

    A predictor is stored as its training table and JSON settings and refitted when it is loaded,
    so that nothing is ever unpickled.
    """

    @abstractmethod
    def predict(self, features: LayerFeatures, seed: int) -> Prediction:
        """Predict all layers of one model; `seed` is for sampling the chance of being best."""


def chance_of_best(draws: np.ndarray) -> np.ndarray:
    """Share of the draws (draws, layers) in which each layer has the highest contribution."""
    best = draws.argmax(axis=1)
    return np.bincount(best, minlength=draws.shape[1]) / len(draws)
