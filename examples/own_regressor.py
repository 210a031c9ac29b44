"""A regressor of one's own: the mean contribution of the nearest layers of other models.

    layerpick evaluate --regressor examples/own_regressor.py:Nearest --level backward
    layerpick calibrate --regressor examples/own_regressor.py:Nearest

It stands beside the built-in ones, and is used where it predicts models left out best.
"""

from dataclasses import dataclass

import numpy as np

from layerpick.calibration.predictors.regressors import Predict, Regressor, Rows, strongest


@dataclass(frozen=True)
class Nearest(Regressor):
    """Nearest neighbours in the strongest columns; the fields are the settings that are stored."""

    name = "nearest"
    neighbours: int = 9
    keep: int = 8

    def fit(self, rows: Rows) -> Predict:
        """Keep the rows; the work is done when they are asked."""
        from sklearn.neighbors import KNeighborsRegressor

        kept = strongest(rows, self.keep)
        size = min(self.neighbours, len(rows.targets))
        nearest = KNeighborsRegressor(size).fit(rows.columns[:, kept], rows.targets)
        return lambda columns: np.asarray(nearest.predict(columns[:, kept]))
