"""Features made comparable across models.

The size of a gradient says nothing across models; which layer has the largest does. Every feature
enters twice, compared with the other layers of its own model only: as a rank and as a z-score. The
z-scores of a feature that comes with standard errors are shrunken by how far they are noise. Beside
them stand the depth and two numbers of the whole model. Which features there are is decided
by their presence in every example, never by the contributions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerpick.calibration.predictors.base import LayerFeatures
from layerpick.calibration.predictors.levels import Level
from layerpick.calibration.sweeps.examples import TrainingExample
from layerpick.calibration.sweeps.population import Population

FEW_MODELS = 5
"""Models without which whole data sets are left out too: too few models to judge by alone."""
FEWEST_GROUPS = 3
"""Groups to leave out in turn, without which a population cannot be judged by itself."""
SWEEP = slice(0, 2)
"""Columns of the whole model: base reward and log of the number of layers."""
DEPTH = slice(2, 4)
"""Columns of the relative depth: d = 2 · depth − 1, and d²."""
CLIP = 3.0
"""Largest absolute z-score."""
ERROR = "_error"
"""How the name of a feature's standard error ends: after the feature's own name."""
TAU = 0.15
"""Scatter of contributions that no measurement removes, in contribution; bounds the weight of a
layer measured well."""


@dataclass(frozen=True, eq=False)
class Design:
    """The training table of one level: one row per measured layer."""

    level: Level
    examples: tuple[TrainingExample, ...]
    features: tuple[str, ...]
    """Those present in every example, standard errors aside."""
    lacking: Mapping[str, int]
    """Features left out, and how many of the examples lack each."""
    columns: np.ndarray
    """(rows, columns), float64: see `columns_of`."""
    targets: np.ndarray
    """(rows,), float64: measured contributions."""
    weights: np.ndarray
    """(rows,), float64: 1 / (τ² + error²), scaled so that every model sums to 1."""
    errors: np.ndarray
    """(rows,), float64: standard errors of the targets."""
    sweeps: np.ndarray
    """(rows,), int64: number of the row's sweep."""
    models: np.ndarray
    """(rows,), str: hash of the row's model."""
    data: np.ndarray
    """(rows,), str: hash of the row's data set."""
    populations: np.ndarray
    """(rows,), str: what kind of model the row's is."""
    foretold: np.ndarray
    """(rows,), float64: what a predictor fitted and chosen without the row's model (or data) says;
    not a number where that is unknown."""

    def rows_of(self, groups: frozenset[str]) -> np.ndarray:
        """(rows,), bool: whether the row's model or data set is one of these, by hash."""
        return np.isin(self.models, list(groups)) | np.isin(self.data, list(groups))

    def without(self, groups: frozenset[str]) -> Design:
        """The same table without these models and data sets; its columns stay what they are."""
        return self.only(~self.rows_of(groups))

    def of(self, population: Population) -> tuple[Design, Design]:
        """The rows of a population and those of all others; all rows if it has too few groups."""
        own = self.populations == population
        alone = self.only(own)
        if len(alone.groups) < FEWEST_GROUPS:
            return self, self.only(np.zeros_like(own))
        return alone, self.only(~own)

    def only(self, rows: np.ndarray) -> Design:
        """The same table with those rows (rows,), bool, which hold whole sweeps."""
        kept = set(self.sweeps[rows].tolist())
        numbers = np.unique(self.sweeps)
        examples = zip(numbers.tolist(), self.examples, strict=True)
        return replace(
            self,
            examples=tuple(example for number, example in examples if number in kept),
            columns=self.columns[rows],
            targets=self.targets[rows],
            weights=self.weights[rows],
            errors=self.errors[rows],
            sweeps=self.sweeps[rows],
            models=self.models[rows],
            data=self.data[rows],
            populations=self.populations[rows],
            foretold=self.foretold[rows],
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """What is left out in turn, by hash: models, and data sets where models are few."""
        models = np.unique(self.models).tolist()
        if len(models) >= FEW_MODELS:
            return tuple(models)
        sweeps = {
            group: frozenset(self.sweeps[self.rows_of(frozenset({group}))].tolist())
            for group in (*models, *np.unique(self.data).tolist())
        }
        # A data set that one model alone has been asked may be all that there is of it.
        named = {left_out: group for group, left_out in reversed(sweeps.items())}
        return tuple(group for left_out, group in named.items() if left_out != set(self.sweeps))

    @property
    def alike(self) -> np.ndarray:
        """(rows,), str: rows of one name are left out together: of a model, or of a data set."""
        few = len(np.unique(self.models)) < FEW_MODELS and len(np.unique(self.data)) > 1
        return self.data if few else self.models


def make_design(examples: Sequence[TrainingExample], level: Level) -> Design:
    """The table of a level, from those examples that `usable` lets through."""
    chosen = tuple(example for example in examples if usable(example, level))
    features, lacking = _common(chosen, level)
    columns, targets, errors, foretold = [], [], [], []
    for example in chosen:
        measured = example.measured
        columns.append(columns_of(example.layer_features(), features, level)[measured])
        targets.append(example.contributions[measured])
        errors.append(example.errors[measured])
        unknown = np.full(example.layers, np.nan)
        foretold.append((unknown if example.foretold is None else example.foretold)[measured])
    counts = [len(each) for each in targets]

    def by_row(values: Sequence[str]) -> np.ndarray:
        return np.repeat(np.array(values, dtype=str), counts)

    models = by_row([example.weights_hash for example in chosen])
    all_errors = np.concatenate([np.zeros(0), *errors])
    return Design(
        level=level,
        examples=chosen,
        features=features,
        lacking=lacking,
        columns=np.concatenate([np.zeros((0, DEPTH.stop + 2 * len(features))), *columns]),
        targets=np.concatenate([np.zeros(0), *targets]),
        weights=_weights(all_errors, models),
        errors=all_errors,
        sweeps=np.repeat(np.arange(len(chosen)), counts),
        models=models,
        data=by_row([example.data_hash for example in chosen]),
        populations=by_row([example.population for example in chosen]),
        foretold=np.concatenate([np.zeros(0), *foretold]),
    )


def usable(example: TrainingExample, level: Level) -> bool:
    """Whether every probe of the level found something in this example's model."""
    return all(example.features.get(probe) for probe in level.probes)


def columns_of(asked: LayerFeatures, features: Sequence[str], level: Level) -> np.ndarray:
    """The rows of one model's layers, (layers, 4 + 2 · features), float64.

    Columns: base reward (0 if unknown, or if the level has no rollouts), log of the number of
    layers, d = 2 · depth − 1, d², then the ranks of all features and their z-scores times their
    `reliability`. A feature that is lacking, or not finite in a layer, counts as average there.
    """
    layers = len(asked.depth)
    reward = asked.base_reward if level.rollouts and asked.base_reward is not None else 0.0
    centred = 2 * asked.depth - 1
    nothing = np.zeros(layers)
    values = [asked.probes.get(name, nothing) for name in features]
    errors = [asked.probes.get(name + ERROR, nothing) for name in features]
    return np.column_stack(
        [
            np.full(layers, reward),
            np.full(layers, np.log(layers)),
            centred,
            centred**2,
            *(ranks(value) for value in values),
            *(reliability(v, e) * z_scores(v) for v, e in zip(values, errors, strict=True)),
        ]
    )


def ranks(values: np.ndarray) -> np.ndarray:
    """(layers,) → (layers,): −1 for the lowest to 1 for the highest, ties on their mean rank."""
    from scipy.stats import rankdata

    found = np.isfinite(values)
    count = int(found.sum())
    result = np.zeros(len(values))
    if count > 1:
        result[found] = 2 * (rankdata(values[found]) - 1) / (count - 1) - 1
    return result


def z_scores(values: np.ndarray) -> np.ndarray:
    """(layers,) → (layers,): mean 0 and deviation 1 over the layers, then clipped at ±`CLIP`."""
    found = np.isfinite(values)
    result = np.zeros(len(values))
    if found.sum() > 1:
        # Scaled first, so that neither squares nor sums of huge values overflow.
        scaled = values[found] / (np.abs(values[found]).max() or 1.0)
        deviation = scaled.std()
        if deviation > 1e-12:
            result[found] = np.clip((scaled - scaled.mean()) / deviation, -CLIP, CLIP)
    return result


def reliability(values: np.ndarray, errors: np.ndarray) -> float:
    """1 / (1 + mean of errors² / variance of the values), over layers where both are finite.

    The noise counts on top of the variance, although that holds it already: layers are measured on
    the same prompts, so that much of their errors is the same in all of them.
    """
    found = np.isfinite(values) & np.isfinite(errors)
    if found.sum() < 2:
        return 1.0
    # Scaled first, so that squares do not overflow; rounding errors are no variance.
    size = np.abs(values[found]).max() or 1.0
    variance = max(float(np.var(values[found] / size, ddof=1)), 1e-24)
    return 1 / (1 + float(np.mean((errors[found] / size) ** 2)) / variance)


def _common(
    examples: Sequence[TrainingExample], level: Level
) -> tuple[tuple[str, ...], dict[str, int]]:
    counts: dict[str, int] = {}
    for example in examples:
        for probe in level.probes:
            used = level.used(example.features[probe])
            for name, values in used.items():
                is_error = name.endswith(ERROR) and name.removesuffix(ERROR) in used
                if not is_error:
                    counts[name] = counts.get(name, 0) + bool(np.isfinite(values).all())
    lacking = {name: len(examples) - n for name, n in counts.items() if n < len(examples)}
    return tuple(sorted(set(counts) - set(lacking))), lacking


def _weights(errors: np.ndarray, models: np.ndarray) -> np.ndarray:
    weights = 1 / (TAU**2 + errors**2)
    for model in np.unique(models):
        own = models == model
        weights[own] /= weights[own].sum()
    return weights
