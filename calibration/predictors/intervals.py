"""How far off a prediction may be: intervals, chances of being best, and strangeness.

Intervals are cross-conformal (CV+: Barber et al. 2021, arXiv 1905.02928, eq. 11), by MAPIE, with
whole models left out, or whole data sets where the models are few. Every one of these has the same
say, however many layers and sweeps it has (the weights 1 / (K n_k) of Lee, Barber & Willett 2023,
arXiv 2306.06342): its rows are repeated to make up for their number. Signed residuals are used, so
the two sides need not be equal.

Chances of being best come from drawing all layers at once, from the residuals of one sweep at a
time: what they have in common moves all layers alike; the rest is a layer's own. Of the rest, the
part that the measurement's error explains is taken off.

Strangeness is how far a model is from those learned from, as a multiple of the distance that 95 %
of the left-out training sweeps keep: of its layers, in the design columns, or of the model, in its
base reward and number of layers; whichever is larger.
"""

from __future__ import annotations

import numpy as np

from layerpick.calibration.predictors.design import SWEEP, Design
from layerpick.calibration.predictors.estimator import ContributionEstimator, Others, inputs
from layerpick.calibration.predictors.regressors import Regressor

COVERAGE = 0.8
USUAL = 0.95
"""Share of the left-out training sweeps that do not count as strange."""
LEAST_SCATTER = 0.1
"""Least unit of distance, lest columns alike in all training sweeps make everything strange."""
LEAST_OWN = 0.25
"""Least share of a residual's variance that is left to the layer when errors are taken off."""


class ConformalRegressor:
    """A regressor fitted to a design, with intervals from what is `alike` left out."""

    def __init__(self, design: Design, regressor: Regressor, others: Others | None = None):
        from mapie.conformity_scores import AbsoluteConformityScore
        from mapie.regression import CrossConformalRegressor
        from sklearn.model_selection import LeaveOneGroupOut

        rows = _same_number(design.alike)
        self._conformal = CrossConformalRegressor(
            ContributionEstimator(regressor, others, design.features),
            confidence_level=COVERAGE,
            conformity_score=AbsoluteConformityScore(sym=False),
            method="plus",
            cv=LeaveOneGroupOut(),
        ).fit_conformalize(
            inputs(design)[rows],
            design.targets[rows],
            groups=design.alike[rows],
            fit_params={"sample_weight": design.weights[rows]},
        )
        _, first = np.unique(rows, return_index=True)
        self.residuals: np.ndarray = self._conformal.conformity_scores[first]
        """(rows,), float64: measured − predicted, each with what is alike left out."""

    def predict(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Contribution, low and high of design columns (layers, columns), each (layers,)."""
        asked = np.column_stack([np.zeros(len(columns)), columns])
        point, bounds = self._conformal.predict_interval(asked, aggregate_point_predictions=None)
        low, high = bounds[:, :, 0].T
        return point, np.minimum(low, point), np.maximum(high, point)


class ResidualDraws:
    """Residuals of a whole sweep, drawn anew from those of the sweeps left out."""

    def __init__(self, residuals: np.ndarray, errors: np.ndarray, sweeps: np.ndarray):
        """From residuals, standard errors and sweeps of the same rows, each (rows,)."""
        _, own = np.unique(sweeps, return_inverse=True)
        counts = np.bincount(own)
        self.shifts = np.bincount(own, weights=residuals) / counts
        """(sweeps,): what the residuals of each sweep have in common."""
        # Residuals about their own mean are too small by √((n − 1) / n).
        scale = np.sqrt(counts / np.maximum(counts - 1, 1))[own]
        rest = (residuals - self.shifts[own]) * scale
        variance, noise = float((rest**2).mean()), float((errors**2).mean())
        share = max(1 - noise / variance, LEAST_OWN) if variance > 0 else 1.0
        self.own = np.zeros((len(counts), counts.max()))
        """(sweeps, most rows of one), padded: what is a layer's own."""
        for sweep, count in enumerate(counts):
            self.own[sweep, :count] = np.sqrt(share) * rest[own == sweep]
        self._counts = counts

    def draw(self, layers: int, draws: int, generator: np.random.Generator) -> np.ndarray:
        """(draws, layers), float64."""
        drawn = generator.integers(len(self.own), size=draws)[:, None]
        rows = generator.integers(self._counts[drawn], size=(draws, layers))
        return self.shifts[drawn] + self.own[drawn, rows]


class Strangeness:
    """Distance to what was learned from, in units of what is usual among left-out sweeps."""

    def __init__(self, design: Design):
        _, first = np.unique(design.sweeps, return_index=True)
        alike = design.alike
        self._layers = _Neighbours(design.columns[:, SWEEP.stop :], alike, design.sweeps)
        self._whole = _Neighbours(
            design.columns[first][:, SWEEP], alike[first], design.sweeps[first]
        )

    def of(self, columns: np.ndarray) -> float:
        """Strangeness of one model's layers (layers, columns); above 1 is outside calibration."""
        return max(
            self._layers.distance(columns[:, SWEEP.stop :]),
            self._whole.distance(columns[:1, SWEEP]),
        )


class _Neighbours:
    """Mean distance of rows to their nearest neighbour, in columns of equal scatter."""

    def __init__(self, rows: np.ndarray, alike: np.ndarray, sweeps: np.ndarray):
        self._scale = np.maximum(rows.std(axis=0), LEAST_SCATTER)
        self._rows = rows / self._scale
        apart = alike[:, None] != alike[None, :]
        nearest = np.where(apart, _distances(self._rows, self._rows), np.inf).min(axis=1)
        usual = [nearest[sweeps == sweep].mean() for sweep in np.unique(sweeps)]
        self._limit = max(float(np.quantile(usual, USUAL)), LEAST_SCATTER)

    def distance(self, rows: np.ndarray) -> float:
        nearest = _distances(rows / self._scale, self._rows).min(axis=1)
        return float(nearest.mean()) / self._limit


def _same_number(alike: np.ndarray) -> np.ndarray:
    """Row numbers, those of a group with few rows repeated so that all have about as many."""
    _, own, counts = np.unique(alike, return_inverse=True, return_counts=True)
    repeats = np.round(counts.max() / counts).astype(int)
    return np.repeat(np.arange(len(alike)), repeats[own])


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return cdist(first, second)
