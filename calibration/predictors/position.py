"""The position predictor: relative depth only, for when no measured sweep resembles the model.

A ridge regression of contribution on a polynomial in depth, fitted to the published sweeps with
every sweep counting the same. Its interval comes from residuals of sweeps left out one at a time.

Limits: it knows nothing of the model at hand. Published sweeps are Qwen's, and where in the depth
RL helps differs between models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerpick.calibration.paths import POSITION_SETTINGS
from layerpick.calibration.predictors.base import (
    LayerFeatures,
    Prediction,
    Predictor,
)
from layerpick.calibration.predictors.losses import PastPick, learn_scale
from layerpick.calibration.sweeps.published import published_sweeps
from layerpick.calibration.sweeps.values import Sweep

BASIS = "position only: no measured sweep for a model like this"
DRAWS = 4000


@dataclass(frozen=True)
class PositionSettings:
    """How the regression is fitted."""

    degree: int
    """Degree of the polynomial in relative depth."""
    ridge: float
    """L2 penalty."""
    coverage: float
    """Share of left-out contributions that the interval should hold."""


class PositionPredictor(Predictor):
    """Contribution from relative depth."""

    def __init__(self, sweeps: Sequence[Sweep], settings: PositionSettings):
        self._settings = settings
        self._regression = _fit(sweeps, settings)
        guesses = [
            _fit([*sweeps[:index], *sweeps[index + 1 :]], settings).predict(_depths(sweep))
            for index, sweep in enumerate(sweeps)
        ]
        measured = [_contributions(sweep) for sweep in sweeps]
        self.residuals = np.concatenate(measured) - np.concatenate(guesses)
        """(measured layers,): measured − predicted, each with its own sweep left out."""
        self._loss_scale = learn_scale(
            [
                PastPick.of(guess, self._draws(guess, 0), truth, str(index))
                for index, (guess, truth) in enumerate(zip(guesses, measured, strict=True))
            ]
        )

    def predict(self, features: LayerFeatures, seed: int) -> Prediction:
        """Predict from `features.depth`; the interval has the same offsets at every depth."""
        mean = self._regression.predict(features.depth.reshape(-1, 1))
        tail = (1 - self._settings.coverage) / 2
        low, high = np.quantile(self.residuals, [tail, 1 - tail])
        return Prediction(
            contribution=mean,
            low=mean + low,
            high=mean + high,
            draws=self._draws(mean, seed),
            coverage=self._settings.coverage,
            basis=BASIS,
            rates=("shared",),
            loss_scale=self._loss_scale,
        )

    def _draws(self, mean: np.ndarray, seed: int) -> np.ndarray:
        """(draws, layers), float64: every layer's residual on its own."""
        generator = np.random.default_rng(seed)
        return mean + generator.choice(self.residuals, size=(DRAWS, len(mean)))


def load_position_predictor() -> PositionPredictor:
    """Refit the shipped position predictor from its settings and the published sweeps."""
    settings = PositionSettings(**json.loads(POSITION_SETTINGS.read_text("utf-8")))
    return PositionPredictor(published_sweeps(), settings)


def _fit(sweeps: Sequence[Sweep], settings: PositionSettings):  # type: ignore[no-untyped-def]
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures

    model = make_pipeline(
        PolynomialFeatures(settings.degree, include_bias=False), Ridge(alpha=settings.ridge)
    )
    depths = np.concatenate([_depths(sweep) for sweep in sweeps])
    targets = np.concatenate([_contributions(sweep) for sweep in sweeps])
    weights = np.concatenate([np.full(len(s.layers), 1 / len(s.layers)) for s in sweeps])
    return model.fit(depths, targets, ridge__sample_weight=weights)


def _depths(sweep: Sweep) -> np.ndarray:
    return np.array([[sweep.depth(layer)] for layer in sweep.layers])


def _contributions(sweep: Sweep) -> np.ndarray:
    return np.array([sweep.contribution(layer) for layer in sweep.layers])
