"""From design columns to contributions, as a scikit-learn estimator.

A contribution is the mean of its sweep plus the layer's deviation from it. How much single layers
recover on average differs between sweeps for other reasons than which layer is best, so the two
are fitted apart: the mean by the model-wide columns, the deviation by a regressor. Deviations are
brought to the same scatter in every sweep first, lest the few models whose layers differ by far
the most decide alone what matters; predictions have the typical scatter.

Sweeps of another population, whose layers may behave otherwise, can be learned from beside the own
ones, with a weight of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from layerpick.calibration.predictors.design import DEPTH, SWEEP, Design
from layerpick.calibration.predictors.regressors import Regressor, Rows

MEAN_PENALTY = 10.0
"""L2 penalty of the regression of the sweeps' means, on standardised columns."""
LAYER = [0, 1 + DEPTH.start]
"""Columns of X that tell layers apart: the sweep and the depth."""
LEAST_SCATTER = 1e-3
"""Least scatter of a sweep's contributions, in contribution."""


@dataclass(frozen=True, eq=False)
class Others:
    """Rows of another population."""

    inputs: np.ndarray
    """(rows, 1 + columns), float64: see `inputs`."""
    targets: np.ndarray
    """(rows,), float64."""
    weights: np.ndarray
    """(rows,), float64."""
    weight: float
    """Of them all together, the own rows together being 1."""


class ContributionEstimator(RegressorMixin, BaseEstimator):
    """X is (rows, 1 + columns): the number of the row's sweep, then the columns of the design."""

    def __init__(
        self, regressor: Regressor, others: Others | None = None, features: tuple[str, ...] = ()
    ):
        self.regressor = regressor
        self.others = others
        self.features = features

    def fit(
        self,
        X: np.ndarray,  # noqa: N803
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
    ) -> ContributionEstimator:
        """Fit to contributions y (rows,), weights of any scale; a repeated layer counts once."""
        _, once = np.unique(X[:, LAYER], axis=0, return_index=True)
        X, y = X[once], y[once]  # noqa: N806
        weights = np.ones(len(y)) if sample_weight is None else sample_weight[once]
        if self.others is not None:
            theirs = self.others.weights * self.others.weight / self.others.weights.sum()
            weights = np.concatenate([weights / weights.sum(), theirs])
            X, y = np.concatenate([X, self.others.inputs]), np.concatenate([y, self.others.targets])  # noqa: N806
        weights = weights / weights.mean()
        sweeps, columns = X[:, 0], X[:, 1:]
        _, first, own = np.unique(sweeps, return_index=True, return_inverse=True)
        means = np.bincount(own, weights=y) / np.bincount(own)
        of_sweep = np.bincount(own, weights=weights)
        self._scaler = StandardScaler().fit(columns[first][:, SWEEP])
        self._mean = Ridge(alpha=MEAN_PENALTY).fit(
            self._scaler.transform(columns[first][:, SWEEP]),
            means,
            sample_weight=of_sweep / of_sweep.mean(),
        )
        targets = _same_scatter(y - means[own], own, of_sweep)
        # Hundreds of small trees: checking their settings would take as long as growing them.
        with config_context(assume_finite=True, skip_parameter_validation=True):
            self._deviation = self.regressor.fit(
                Rows(columns, targets, weights, sweeps, self.features)
            )
        self.is_fitted_ = True
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        """Contributions, (rows,), float64."""
        columns = X[:, 1:]
        mean = self._mean.predict(self._scaler.transform(columns[:, SWEEP]))
        return mean + self._deviation(columns)


def _same_scatter(deviations: np.ndarray, own: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scale the deviations of each sweep to the geometric mean of the sweeps' scatter.

    `own` (rows,) numbers the row's sweep, `weights` are (sweeps,).
    """
    scatter = np.sqrt(np.bincount(own, weights=deviations**2) / np.bincount(own))
    scatter = scatter.clip(min=LEAST_SCATTER)
    typical = np.exp(np.average(np.log(scatter), weights=weights))
    return deviations * typical / scatter[own]


def fitted(
    design: Design, regressor: Regressor, others: Others | None = None
) -> ContributionEstimator:
    """Fit to a design."""
    return ContributionEstimator(regressor, others, design.features).fit(
        inputs(design), design.targets, design.weights
    )


def as_others(design: Design, weight: float) -> Others | None:
    """The rows of a design as those of another population; None where they do not count."""
    if not weight or not len(design.targets):
        return None
    return Others(inputs(design), design.targets, design.weights, weight)


def inputs(design: Design) -> np.ndarray:
    """X of the whole design, (rows, 1 + columns), float64."""
    return np.column_stack([design.sweeps, design.columns])
