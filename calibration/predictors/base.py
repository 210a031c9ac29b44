"""What a predictor is: features of each layer → contribution, interval, chance of being best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from layerpick.calibration.predictors.losses import (
    AS_DRAWN,
    LEAST_STATED,
    LossScale,
    stated_loss,
    thinned,
)
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
    draws: np.ndarray
    """(draws, layers), float64: contributions of all layers as they may turn out together."""
    coverage: float
    """Share of the measured contributions that the interval is meant to hold."""
    basis: str
    """What the prediction rests on, in words."""
    rates: tuple[Rates, ...] = ()
    """Kinds of the sweeps learned from: at a shared learning rate, or each policy at its own."""
    loss_scale: LossScale = AS_DRAWN
    """Learned from what earlier picks lost."""

    def only(self, layers: np.ndarray) -> Prediction:
        """Of these layers alone (layers,), int, as if the model had no others."""
        return replace(
            self,
            contribution=self.contribution[layers],
            low=self.low[layers],
            high=self.high[layers],
            draws=self.draws[:, layers],
        )

    @property
    def pick(self) -> int:
        """The layer with the highest prediction."""
        return int(self.contribution.argmax())

    @cached_property
    def chance_best(self) -> np.ndarray:
        """(layers,), float64: share of the draws in which each layer is the best; sums to 1."""
        best = self.draws.argmax(axis=1)
        return np.bincount(best, minlength=self.draws.shape[1]) / len(self.draws)

    @property
    def expected_loss(self) -> float:
        """By how much the best layer's contribution is expected to be above the pick's."""
        return self.loss_scale.expected * self._stated_loss

    @property
    def loss_bound(self) -> float:
        """What the pick loses at most, in `losses.HELD` of the cases."""
        return self.loss_scale.bound * max(self._stated_loss, LEAST_STATED)

    @cached_property
    def _stated_loss(self) -> float:
        return stated_loss(*thinned(self.draws, self.pick, self.loss_scale.layers))


class Predictor(ABC):
    """A regressor fitted on measured sweeps.

    A predictor is stored as its training table and JSON settings and refitted when it is loaded,
    so that nothing is ever unpickled.
    """

    @abstractmethod
    def predict(self, features: LayerFeatures, seed: int) -> Prediction:
        """Predict all layers of one model; `seed` is for sampling the chance of being best."""

    def influences(self, features: LayerFeatures) -> Mapping[str, np.ndarray]:  # noqa: ARG002
        """By feature, (layers,), float64: what its values add to each layer's contribution.

        Occlusion: the prediction minus that with the feature alike in all layers, about its mean
        over the layers. Empty where no features are read.
        """
        return {}
