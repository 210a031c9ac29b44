"""Regressors of a layer's contribution, relative to the mean of its sweep, on the design columns.

There are a few hundred rows and hundreds of columns, so every family is kept weak: shrunken, few
columns, shallow trees. `keep` limits a regressor to the columns that correlate most with the
targets it is fitted to; it is chosen anew in every fit, so that no left-out row has a say in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np

from layerpick.calibration.predictors.design import DEPTH

SEED = 0
BAGS, BAG_SHARE = 30, 0.7
"""Regressions in a bagged one, and the share of the sweeps that each is fitted to."""
Predict = Callable[[np.ndarray], np.ndarray]
"""(rows, columns) → (rows,), float64."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What a regressor is fitted to."""

    columns: np.ndarray
    """(rows, columns), float64: those of the design."""
    targets: np.ndarray
    """(rows,), float64: contributions less the mean of their sweep."""
    weights: np.ndarray
    """(rows,), float64, of mean 1."""
    sweeps: np.ndarray
    """(rows,): number of the sweep; only rows of the same sweep may be compared."""
    features: tuple[str, ...] = ()
    """Names of the features whose ranks are the first columns after those of the depth."""

    def where(self, chosen: np.ndarray) -> Rows:
        """Those rows for which `chosen` (rows,), bool, holds; their weights stay as they are."""
        return replace(
            self,
            columns=self.columns[chosen],
            targets=self.targets[chosen],
            weights=self.weights[chosen],
            sweeps=self.sweeps[chosen],
        )


@dataclass(frozen=True)
class Regressor(ABC):
    """One family with its settings; the dataclass fields are its settings, as JSON values."""

    name: ClassVar[str]

    @abstractmethod
    def fit(self, rows: Rows) -> Predict:
        """Fit, and return the fitted function."""

    def __str__(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in asdict(self).items())
        return f"{self.name} ({settings})" if settings else self.name


@dataclass(frozen=True)
class DepthRegressor(Regressor):
    """Ridge regression on the depth and its square alone: what to beat."""

    name = "depth"
    alpha: float

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        return _ridge(rows, np.arange(DEPTH.start, DEPTH.stop), self.alpha)


@dataclass(frozen=True)
class GradientAndGains(Regressor):
    """Layers by what should tell before any sweep is seen: the mean of the ranks that are there.

    The size of a layer's gradient relative to its weights, the largest first (auto-RGN, Surgical
    Fine-Tuning, arXiv 2210.11466), and what the layer gained where a probe trained it. For where
    too few models were measured to choose anything: only how far layers lie apart is taken from
    the targets, as if the ranks correlated with them by `CORRELATION`.
    """

    name = "gradient and gains"
    FEATURES: ClassVar[tuple[str, ...]] = (
        "relative_gradient_norm",
        "long_step_gain",
        "off_policy_5_gain",
    )
    CORRELATION: ClassVar[float] = 0.6

    @classmethod
    def known(cls, features: Sequence[str]) -> list[str]:
        """Those of `FEATURES` that are among these."""
        return [name for name in cls.FEATURES if name in features]

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        kept = [DEPTH.stop + rows.features.index(name) for name in self.known(rows.features)]

        def score(columns: np.ndarray) -> np.ndarray:
            return columns[:, kept].mean(axis=1)

        spread = float(score(rows.columns).std())
        scatter = float(np.sqrt(np.average(rows.targets**2, weights=rows.weights)))
        slope = self.CORRELATION * scatter / spread if spread else 0.0
        return lambda columns: slope * score(columns)


@dataclass(frozen=True)
class RidgeRegressor(Regressor):
    """Linear, with an L2 penalty."""

    name = "ridge"
    alpha: float
    keep: int

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        return _ridge(rows, strongest(rows, self.keep), self.alpha)


@dataclass(frozen=True)
class UnitWeights(Regressor):
    """The mean of the strongest columns, standardised, each with the sign of its correlation.

    Only one slope is fitted (an improper linear model: Dawes 1979, doi 10.1037/0003-066X.34.7.571),
    so that columns which tell much the same average out their noise.
    """

    name = "unit weights"
    keep: int

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        kept = strongest(rows, self.keep)
        chosen = rows.columns[:, kept]
        centre = np.average(chosen, axis=0, weights=rows.weights)
        signs = np.sign((rows.weights * rows.targets) @ (chosen - centre))
        signs /= chosen.std(axis=0).clip(min=1e-9)

        def score(columns: np.ndarray) -> np.ndarray:
            return ((columns[:, kept] - centre) * signs).mean(axis=1)

        scores = score(rows.columns)
        power = float((rows.weights * scores**2).sum())
        slope = float((rows.weights * scores * rows.targets).sum()) / power if power else 0.0
        return lambda columns: slope * score(columns)


@dataclass(frozen=True)
class BaggedRidge(Regressor):
    """The mean of ridge regressions on random parts of the sweeps, each with columns of its own.

    Which few columns are strongest changes with the sweeps at hand; their mean changes less.
    """

    name = "bagged ridge"
    alpha: float
    keep: int

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        generator = np.random.default_rng(SEED)
        sweeps = np.unique(rows.sweeps)
        size = max(1, round(BAG_SHARE * len(sweeps)))
        members = []
        for _ in range(BAGS):
            bag = rows.where(np.isin(rows.sweeps, generator.choice(sweeps, size, replace=False)))
            members.append(_ridge(bag, strongest(bag, self.keep), self.alpha))
        return lambda columns: np.mean([predict(columns) for predict in members], axis=0)


@dataclass(frozen=True)
class GaussianProcess(Regressor):
    """A Gaussian process; each row's noise is the inverse of its weight.

    Kernel: variance σ_f² of the targets, squared exponential with length `length` · √columns.
    """

    name = "gaussian process"
    length: float
    noise: float
    """Variance of the noise of a row of weight 1, in variances of the targets."""
    keep: int

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF

        kept = strongest(rows, self.keep)
        scale = float(rows.targets.std()) or 1.0
        process = GaussianProcessRegressor(
            RBF(self.length * np.sqrt(len(kept))), alpha=self.noise / rows.weights, optimizer=None
        ).fit(rows.columns[:, kept], rows.targets / scale)
        return lambda columns: scale * process.predict(columns[:, kept])


@dataclass(frozen=True)
class GradientBoosting(Regressor):
    """Shallow boosted trees on random halves of the rows."""

    name = "gradient boosting"
    trees: int
    depth: int
    keep: int

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        from sklearn.ensemble import GradientBoostingRegressor

        kept = strongest(rows, self.keep)
        trees = GradientBoostingRegressor(
            n_estimators=self.trees,
            max_depth=self.depth,
            learning_rate=0.07,
            subsample=0.5,
            max_features=0.3,
            min_samples_leaf=4,
            random_state=SEED,
        ).fit(rows.columns[:, kept], rows.targets, sample_weight=rows.weights)
        return lambda columns: trees.predict(columns[:, kept])


@dataclass(frozen=True)
class RandomForest(Regressor):
    """Trees on bootstrap samples of the rows, with large leaves."""

    name = "random forest"
    trees: int
    leaf: int
    keep: int

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        from sklearn.ensemble import RandomForestRegressor

        kept = strongest(rows, self.keep)
        forest = RandomForestRegressor(
            n_estimators=self.trees,
            min_samples_leaf=self.leaf,
            max_features=0.3,
            random_state=SEED,
        ).fit(rows.columns[:, kept], rows.targets, sample_weight=rows.weights)
        return lambda columns: forest.predict(columns[:, kept])


@dataclass(frozen=True)
class PairwiseRanker(Regressor):
    """Which of two layers of a sweep is better: logistic regression on differences of columns.

    A pair counts by its gap and by its rows' weights. The score w · x is then mapped to
    contributions by least squares through the origin. Limit: that slope is fitted to the same
    rows, so differences between layers come out somewhat too large.
    """

    name = "pairwise ranker"
    inverse_penalty: float
    keep: int

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        from sklearn.linear_model import LogisticRegression

        kept = strongest(rows, self.keep)
        first, second = _pairs(rows)
        if not len(first):
            return lambda columns: np.zeros(len(columns))
        gaps = rows.targets[first] - rows.targets[second]
        differences = rows.columns[first][:, kept] - rows.columns[second][:, kept]
        one, other = rows.weights[first], rows.weights[second]
        counts = np.abs(gaps) * one * other / (one + other)
        # Each pair enters in both orders, so that there are always two classes, and no intercept.
        direction = LogisticRegression(C=self.inverse_penalty, fit_intercept=False).fit(
            np.concatenate([differences, -differences]),
            np.concatenate([gaps > 0, gaps < 0]),
            np.concatenate([counts, counts]) * len(rows.targets) / counts.sum(),
        )
        weight = direction.coef_[0]
        scores = differences @ weight
        power = float((counts * scores**2).sum())
        slope = float((counts * scores * gaps).sum()) / power if power else 0.0
        centre = np.average(rows.columns[:, kept], axis=0, weights=rows.weights)
        return lambda columns: slope * ((columns[:, kept] - centre) @ weight)


@dataclass(frozen=True)
class Blend(Regressor):
    """The mean of five of the other families."""

    name = "mean of families"

    def fit(self, rows: Rows) -> Predict:
        """See `Regressor.fit`."""
        members = [one.fit(rows) for one in BLENDED]
        return lambda columns: np.mean([predict(columns) for predict in members], axis=0)


BLENDED: tuple[Regressor, ...] = (
    RidgeRegressor(alpha=300.0, keep=48),
    BaggedRidge(alpha=30.0, keep=4),
    GaussianProcess(length=2.0, noise=1.0, keep=12),
    GradientBoosting(trees=60, depth=2, keep=48),
    PairwiseRanker(inverse_penalty=0.01, keep=12),
)


def strongest(rows: Rows, keep: int) -> np.ndarray:
    """Indices of the `keep` columns whose weighted correlation with the targets is largest."""
    centred = rows.columns - np.average(rows.columns, axis=0, weights=rows.weights)
    wanted = rows.weights * (rows.targets - np.average(rows.targets, weights=rows.weights))
    spread = np.sqrt(np.average(centred**2, axis=0, weights=rows.weights))
    strength = np.abs(wanted @ centred) / np.where(spread > 1e-9, spread, np.inf)
    return np.sort(np.argsort(-strength, kind="stable")[:keep])


def _ridge(rows: Rows, kept: np.ndarray, alpha: float) -> Predict:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=alpha).fit(rows.columns[:, kept], rows.targets, sample_weight=rows.weights)
    return lambda columns: model.predict(columns[:, kept])


def _pairs(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pairs of rows of the same sweep whose targets differ."""
    first, second = np.triu_indices(len(rows.sweeps), k=1)
    chosen = rows.sweeps[first] == rows.sweeps[second]
    chosen &= rows.targets[first] != rows.targets[second]
    return first[chosen], second[chosen]
