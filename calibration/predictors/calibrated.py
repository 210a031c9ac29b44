"""The calibrated predictor: features of a model never seen → contributions, from measured sweeps.

It learns from the sweeps of the population that the model belongs to, and from all others with a
weight of their own. Outside what was learned from, what depth alone says counts as well: the more,
the stranger the model.
"""

from __future__ import annotations

import numpy as np

from layerpick.calibration.predictors.base import (
    LayerFeatures,
    Prediction,
    Predictor,
)
from layerpick.calibration.predictors.choice import Lesson
from layerpick.calibration.predictors.design import DEPTH, Design, columns_of
from layerpick.calibration.predictors.estimator import as_others, fitted
from layerpick.calibration.predictors.intervals import (
    COVERAGE,
    ConformalRegressor,
    ResidualDraws,
    Strangeness,
)
from layerpick.calibration.predictors.levels import Level
from layerpick.calibration.predictors.losses import PastPick, learn_scale
from layerpick.calibration.predictors.regressors import DepthRegressor, GradientAndGains
from layerpick.calibration.sweeps.population import Population

DRAWS = 4000
PAST_DRAWS = 500
"""Enough for the mean loss of an earlier pick."""
WIDEST = 3.0
"""Most that strangeness widens an interval, as a factor."""
DEPTH_ALONE = DepthRegressor(alpha=3.0)
"""What is fallen back on, in part, outside calibration."""


class CalibratedPredictor(Predictor):
    """The predictor of one level for one population, fitted."""

    def __init__(self, design: Design, lesson: Lesson, population: Population = "pretrained"):
        self.design, others = design.of(population)
        self.lesson = lesson
        self.population = population
        self.others = others if lesson.others else None
        self._theirs = as_others(others, lesson.others)
        self._conformal = ConformalRegressor(self.design, lesson.regressor, self._theirs)
        depth = None if lesson.known_before else fitted(self.design, DEPTH_ALONE, self._theirs)
        self._depth = depth
        self._draws = ResidualDraws(
            self._conformal.residuals, self.design.errors, self.design.sweeps
        )
        self._strangeness = Strangeness(self.design)
        self._loss_scale = learn_scale(self.past_picks())

    @property
    def level(self) -> Level:
        """What it needs measured."""
        return self.design.level

    @property
    def residuals(self) -> np.ndarray:
        """(rows,), float64: measured − predicted, each with its own model or data left out."""
        return self._conformal.residuals

    def past_picks(self) -> list[PastPick]:
        """What was picked in each sweep learned from, with its own model or data left out.

        Left out of the choice of what to learn, too, where the design knows what was foretold so.
        """
        design, found = self.design, []
        for sweep in np.unique(design.sweeps):
            rows = design.sweeps == sweep
            measured = design.targets[rows]
            foretold = design.foretold[rows]
            predicted = np.where(np.isnan(foretold), measured - self.residuals[rows], foretold)
            noise = self._draws.draw(len(measured), PAST_DRAWS, np.random.default_rng(0))
            group = str(design.alike[rows][0])
            found.append(PastPick.of(predicted, predicted + noise, measured, group))
        return found

    def predict(self, features: LayerFeatures, seed: int) -> Prediction:
        """Predict all layers of one model.

        Outside what was seen, intervals and draws widen by the model's strangeness, at most
        `WIDEST` times, and the prediction is its share 1 / strangeness; the rest is depth's. An
        order that was not learned, but known before, is none the worse for what was not seen: with
        few models every other one is strange, and widened intervals held all layers of these.
        """
        columns = columns_of(features, self.design.features, self.level)
        point, low, high = self._conformal.predict(columns)
        strangeness = self._strangeness.of(columns)
        widening = 1.0 if self.lesson.known_before else float(np.clip(strangeness, 1.0, WIDEST))
        centre = point
        if self._depth is not None:
            by_depth = self._depth.predict(_numbered(columns))
            centre = by_depth + (point - by_depth) / widening
        noise = self._draws.draw(len(point), DRAWS, np.random.default_rng(seed))
        return Prediction(
            contribution=centre,
            low=centre - widening * (point - low),
            high=centre + widening * (high - point),
            draws=centre + widening * noise,
            coverage=COVERAGE,
            basis=self._basis(strangeness),
            rates=tuple(sorted({example.rates for example in self.design.examples})),
            loss_scale=self._loss_scale,
        )

    def influences(self, features: LayerFeatures) -> dict[str, np.ndarray]:
        """See `Predictor.influences`; the depth counts as a feature."""
        design, first = self.design, DEPTH.stop
        columns = columns_of(features, design.features, self.level)
        count = len(design.features)
        places: dict[str, list[int]] = {"depth": list(range(DEPTH.start, DEPTH.stop))}
        for number, name in enumerate(design.features):
            places[name] = [first + number, first + count + number]
        alike = np.repeat(columns[None], len(places), axis=0)
        for number, own in enumerate(places.values()):
            alike[number][:, own] = 0.0
        asked = np.concatenate([columns, alike.reshape(-1, columns.shape[1])])
        point = fitted(design, self.lesson.regressor, self._theirs)
        whole, *others = point.predict(_numbered(asked)).reshape(-1, len(columns))
        effects = {name: whole - other for name, other in zip(places, others, strict=True)}
        return {name: effect - effect.mean() for name, effect in effects.items()}

    def strangeness(self, features: LayerFeatures) -> float:
        """Distance to the models learned from; above 1 is outside calibration."""
        return self._strangeness.of(columns_of(features, self.design.features, self.level))

    def _basis(self, strangeness: float) -> str:
        seen = _seen(self.design)
        if self.others is not None:
            seen += f", beside {_seen(self.others)} of another kind"
        seen += f"; {self.level.about}"
        if self.lesson.known_before:
            gains = len(GradientAndGains.known(self.design.features)) > 1
            by = "relative gradient norm" + (" and the gain of training steps" if gains else "")
            seen += f"; ranked by {by}, for lack of measured models like it"
        if strangeness <= 1:
            return seen
        return f"outside calibration ({strangeness:.1f} times the usual distance): {seen}"


def _numbered(columns: np.ndarray) -> np.ndarray:
    """Design columns of one model as an estimator's input."""
    return np.column_stack([np.zeros(len(columns)), columns])


def _seen(design: Design) -> str:
    sweeps, models = len(design.examples), len(set(design.models.tolist()))
    return f"{sweeps} measured sweeps of {models} models"
