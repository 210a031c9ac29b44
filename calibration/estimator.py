"""From design columns to contributions, as a scikit-learn estimator.

A contribution is the mean of its sweep plus the layer's deviation from it. How much single layers
recover on average differs between sweeps for other reasons than which layer is best, so the two
are fitted apart: the mean by the model-wide columns, the deviation by a regressor.
"""

from __future__ import annotations

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from layerpick.calibration.design import SWEEP, Design
from layerpick.calibration.regressors import Regressor, Rows

MEAN_PENALTY = 10.0
"""L2 penalty of the regression of the sweeps' means, on standardised columns."""


class ContributionEstimator(RegressorMixin, BaseEstimator):
    """X is (rows, 1 + columns): the number of the row's sweep, then the columns of the design."""

    def __init__(self, regressor: Regressor):
        self.regressor = regressor

    def fit(
        self,
        X: np.ndarray,  # noqa: N803
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
    ) -> ContributionEstimator:
        """Fit to contributions y (rows,), with weights of any scale."""
        sweeps, columns = X[:, 0], X[:, 1:]
        weights = np.ones(len(y)) if sample_weight is None else sample_weight / sample_weight.mean()
        _, first, own = np.unique(sweeps, return_index=True, return_inverse=True)
        means = np.bincount(own, weights=y) / np.bincount(own)
        of_sweep = np.bincount(own, weights=weights)
        self._scaler = StandardScaler().fit(columns[first][:, SWEEP])
        self._mean = Ridge(alpha=MEAN_PENALTY).fit(
            self._scaler.transform(columns[first][:, SWEEP]),
            means,
            sample_weight=of_sweep / of_sweep.mean(),
        )
        # Hundreds of small trees: checking their settings would take as long as growing them.
        with config_context(assume_finite=True, skip_parameter_validation=True):
            self._deviation = self.regressor.fit(Rows(columns, y - means[own], weights, sweeps))
        self.is_fitted_ = True
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        """Contributions, (rows,), float64."""
        columns = X[:, 1:]
        mean = self._mean.predict(self._scaler.transform(columns[:, SWEEP]))
        return mean + self._deviation(columns)


def fit_rows(design: Design, rows: np.ndarray, regressor: Regressor) -> ContributionEstimator:
    """Fit to those rows (rows,), bool."""
    return ContributionEstimator(regressor).fit(
        inputs(design)[rows], design.targets[rows], design.weights[rows]
    )


def inputs(design: Design) -> np.ndarray:
    """X of the whole design, (rows, 1 + columns), float64."""
    return np.column_stack([design.sweeps, design.columns])
