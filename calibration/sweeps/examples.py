"""Measured sweeps with the features of their models: what a predictor learns from.

A sweep without features teaches nothing, and one in which no layer gained: it is left out, and the
caller is told which and why. So is a sweep at a shared rate where the same model, data and
algorithm have one with a rate for each policy: starved of rate, a layer recovers less than it
could.

Two targets. Contributions, shares of the full-parameter gain, are what a suggestion predicts; where
full-parameter RL collapsed they mean nothing. Shares of the best layer's gain rank the layers just
the same and need no full run, but do not say how much a layer recovers: `Loaded.by_shares` has them
as the target of every sweep, those without contributions included. `Loaded.rankable` has them only
where there are no contributions: there the best layer's gain stands for that of full-parameter RL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layerpick.calibration.predictors.base import LayerFeatures
from layerpick.calibration.sweeps.features import FeatureCost, FeatureTable, read_features
from layerpick.calibration.sweeps.measured import Reading, read_sweep
from layerpick.calibration.sweeps.population import Population, population_of
from layerpick.calibration.sweeps.store import read_folder, sweep_folders
from layerpick.calibration.sweeps.values import Score
from layerpick.training.errors import LayerpickError
from layerpick.training.sweeps.records import Rates, RunRecord

FEWEST_LAYERS = 3
"""Measured layers without which a sweep ranks nothing."""
SEEDS_REPLACED = 2
"""Seeds of the sweep that a prediction is taken to replace; what more seeds cost does not count."""

FeaturesByProbe = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingExample:
    """What a predictor learns from one sweep."""

    model: str
    weights_hash: str
    """Tells models apart, whatever they are called."""
    family: str
    task: str
    data_hash: str
    """Tells the data sets of one task apart."""
    algorithm: str
    base_reward: float
    contributions: np.ndarray
    """(layers,), float64; not a number for layers that were not measured."""
    errors: np.ndarray
    """(layers,), float64: standard errors of the contributions."""
    features: FeaturesByProbe
    """By probe, by feature: (layers,), float64."""
    rates: Rates = "shared"
    """Whether all runs had one learning rate, or every policy its own."""
    foretold: np.ndarray | None = None
    """(layers,), float64: what a predictor fitted and chosen without it says; None if unknown."""

    @property
    def layers(self) -> int:
        """Decoder layers of the model."""
        return len(self.contributions)

    @property
    def measured(self) -> np.ndarray:
        """(measured layers,), int64: their numbers."""
        return np.flatnonzero(np.isfinite(self.contributions))

    @property
    def population(self) -> Population:
        """What kind of model it is of."""
        return population_of(self.model)

    @property
    def by_name(self) -> dict[str, np.ndarray]:
        """All features by name, whatever their probe."""
        return {name: values for own in self.features.values() for name, values in own.items()}

    def layer_features(self) -> LayerFeatures:
        """What a predictor would be asked about this model."""
        depth = np.linspace(0, 1, self.layers) if self.layers > 1 else np.zeros(1)
        return LayerFeatures(depth, self.by_name, self.base_reward, self.population)


@dataclass(frozen=True, eq=False, kw_only=True)
class Example(TrainingExample):
    """A training example, and what is needed to judge a prediction of it."""

    shares: np.ndarray
    """(layers,), float64: (S_k − S_base) / (S_best − S_base); not a number where not measured."""
    share_errors: np.ndarray
    """(layers,), float64: their standard errors; 0 for the best layer."""
    best: frozenset[int]
    """The best layer, and those that cannot be told from it."""
    noise_ceiling: float | None
    seconds: float
    """Of the sweep's first `SEEDS_REPLACED` seeds and its search of the rate."""
    tokens: int
    """Written in these."""
    rollouts: FeatureCost
    costs: Mapping[str, FeatureCost]
    """By probe."""
    source: str = ""
    """Data set, generator or world, in words."""
    folder: Path | None = None
    """Where it lies."""
    stands_in: bool = False
    """Whether the best layer's gain stands for that of full-parameter RL, which has none."""

    @property
    def about(self) -> tuple[str, str, str, str]:
        """What it measured, as the settings of its runs say it."""
        return self.weights_hash, self.task, self.algorithm, self.data_hash

    @property
    def name(self) -> str:
        """Model × task × algorithm, in words."""
        return f"{self.model} · {self.task} · {self.algorithm}"

    def by_shares(self) -> Example:
        """The same sweep with shares of the best layer's gain in place of contributions."""
        return replace(self, contributions=self.shares, errors=self.share_errors)


@dataclass(frozen=True)
class Loaded:
    """The examples found, and a sentence for each sweep that is none."""

    examples: tuple[Example, ...]
    left_out: tuple[str, ...]
    ranked_only: tuple[Example, ...] = ()
    """Those left out whose layers can be ranked but have no contributions: not numbers."""

    @property
    def by_shares(self) -> tuple[Example, ...]:
        """All whose layers can be ranked, with shares of the best layer's gain as the target."""
        return tuple(example.by_shares() for example in (*self.examples, *self.ranked_only))

    @property
    def rankable(self) -> tuple[Example, ...]:
        """All whose layers can be ranked: what a predictor learns from."""
        others = (replace(each.by_shares(), stands_in=True) for each in self.ranked_only)
        return (*self.examples, *others)


def load_examples(roots: Sequence[Path]) -> Loaded:
    """Read the sweeps of one or several folders; of the same sweep twice, the first counts.

    Raises LayerpickError for a folder without records, or a file that is no record.
    """
    examples: list[Example] = []
    ranked_only: list[Example] = []
    left_out: list[str] = []
    seen: dict[object, Path] = {}
    for folder in dict.fromkeys(folder for root in roots for folder in sweep_folders(root)):
        records = read_folder(folder)
        try:
            reading = read_sweep(records)
        except LayerpickError as error:
            left_out.append(f"{folder}: {error}")
            continue
        table = read_features(folder)
        reason = _unusable(reading, table)
        if reading.settings in seen:
            reason = f"It is the sweep of {seen[reading.settings]} over again."
        if reason is not None or table is None:
            left_out.append(f"{folder}: {reason}")
            continue
        seen[reading.settings] = folder
        example = replace(make_example(reading, table, records), folder=folder)
        if reading.refusal is None:
            examples.append(example)
        else:
            left_out.append(f"{folder}: {reading.refusal}")
            if reading.nothing_gained is None:
                ranked_only.append(example)
    found = (*examples, *ranked_only)
    own = {each.about for each in found if each.rates == "own"}
    shared = [each for each in found if each.rates == "shared" and each.about in own]
    left_out += [
        f"{each.name} at a shared learning rate: it was measured again at a rate for each policy."
        for each in shared
    ]
    kept, kept_ranked = (
        tuple(each for each in some if each not in shared) for some in (examples, ranked_only)
    )
    return Loaded(kept, tuple(left_out), kept_ranked)


def make_example(reading: Reading, table: FeatureTable, records: Sequence[RunRecord]) -> Example:
    """Join what a sweep measured with what the probes found."""
    replaced = [record for record in records if record.run.seed < SEEDS_REPLACED]
    settings = reading.settings
    contributions, errors = _by_layer(reading.sweep.contributions, settings.layers)
    own_shares = {layer: reading.share_of_best(layer) for layer in reading.layers}
    shares, share_errors = _by_layer(own_shares, settings.layers)
    return Example(
        model=settings.model,
        weights_hash=settings.weights_hash,
        family=table.family,
        task=settings.task,
        data_hash=settings.data_hash,
        algorithm=settings.algorithm,
        base_reward=table.base_reward,
        contributions=contributions,
        errors=errors,
        shares=shares,
        share_errors=share_errors,
        rates=settings.rates,
        features={
            probe: {name: np.array(values) for name, values in own.items()}
            for probe, own in table.features.items()
        },
        best=frozenset({reading.best, *reading.equals}),
        noise_ceiling=reading.noise_ceiling,
        seconds=sum(record.seconds for record in replaced),
        tokens=sum(record.tokens for record in replaced),
        rollouts=table.rollouts,
        costs=table.costs,
        source=settings.source,
    )


def _by_layer(scores: Mapping[int, Score], layers: int) -> np.ndarray:
    """(2, layers), float64: means and errors; not a number where there is none."""
    values = np.full((2, layers), np.nan)
    for layer, score in scores.items():
        values[:, layer] = score.mean, score.error or 0.0
    return values


def _unusable(reading: Reading, table: FeatureTable | None) -> str | None:
    settings = reading.settings
    if table is None:
        return "It has no features: run `layerpick sweep` again with the same settings."
    measured_with = (table.weights_hash, table.task, table.algorithm, table.layers)
    swept = (settings.weights_hash, settings.task, settings.algorithm, settings.layers)
    if measured_with != swept:
        return "Its features are those of another model, task or algorithm."
    if len(reading.layers) < FEWEST_LAYERS:
        return f"It measured fewer than {FEWEST_LAYERS} layers."
    return None
