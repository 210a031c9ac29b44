"""Predictions of sweeps whose models were left out, and how good they are.

Every prediction comes from a predictor made anew without the model it is about: regressor, its
settings, intervals and all. Leaving out a family, a data set or an algorithm leaves out every
sweep of every model that has one of it. Where a population has few models, that would leave hardly
any: there, leaving out a data set or an algorithm leaves out the data sets concerned only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from layerpick.calibration.judging.accuracy import (
    Estimate,
    Ranking,
    Verdict,
    compare,
    estimate,
    judge,
    judge_ranking,
    summarise,
)
from layerpick.calibration.predictors.base import LayerFeatures, Prediction
from layerpick.calibration.predictors.calibrated import CalibratedPredictor
from layerpick.calibration.predictors.choice import LeftOut, Progress, choose, lessons
from layerpick.calibration.predictors.design import FEW_MODELS, make_design, usable
from layerpick.calibration.predictors.levels import FIRST, LEVELS, Level, worth_measuring
from layerpick.calibration.predictors.narrowing import join, still_possible
from layerpick.calibration.predictors.regressors import Regressor
from layerpick.calibration.sweeps.examples import Example
from layerpick.calibration.sweeps.population import POPULATIONS, Population
from layerpick.training.errors import LayerpickError

By = Literal["model", "family", "task", "algorithm"]
WAYS: tuple[By, ...] = get_args(By)
_KEYS: Mapping[By, Callable[[Example], Hashable]] = {
    "model": lambda example: example.weights_hash,
    "family": lambda example: example.family,
    "task": lambda example: (example.task, example.data_hash),
    "algorithm": lambda example: example.algorithm,
}
SEED = 0


@dataclass(frozen=True)
class Judged:
    """A prediction of a sweep whose model was left out."""

    prediction: Prediction
    predictor: CalibratedPredictor
    """Fitted without it."""
    criterion: float
    """By which its lesson was chosen, without it."""
    verdict: Verdict


@dataclass(frozen=True)
class LevelAccuracy:
    """One level's predictor, judged."""

    level: Level
    held_out: Mapping[Example, Judged]
    means: Mapping[str, Estimate]
    """By metric."""
    against: Mapping[str, Mapping[str, Estimate]]
    """By baseline, by metric: predictor − baseline, paired by sweep."""
    share_of_ceiling: float | None
    """Mean ρ over mean noise ceiling, on the sweeps whose ceiling is known."""
    token_share: Estimate | None
    """Tokens that rollouts and probes wrote, as share of the sweep's."""
    time_share: Estimate | None
    lacking: Mapping[str, int]
    """Features left out, and how many sweeps lack each."""

    @property
    def verdicts(self) -> dict[Example, Verdict]:
        """By sweep."""
        return {example: held.verdict for example, held in self.held_out.items()}


@dataclass(frozen=True)
class Evaluation:
    """All levels beside the baselines."""

    by: By
    examples: tuple[Example, ...]
    noise_ceiling: Estimate | None
    levels: Mapping[str, LevelAccuracy]
    climbed: Mapping[str, Estimate]
    """Of the answer that `layerpick suggest` gives by default, where time allows every level."""
    baselines: Mapping[str, Mapping[str, Estimate]]
    """By name, by metric; those for which no sweep has the feature are absent."""
    notes: tuple[str, ...]
    """What could not be evaluated, and why."""


def evaluate(
    examples: Sequence[Example],
    by: By,
    levels: Sequence[Level],
    baselines: Mapping[str, Ranking],
    done: Progress = lambda _: None,
    regressors: Sequence[Regressor] | None = None,
    teachers: Sequence[Example] | None = None,
) -> Evaluation:
    """Leave out one group after another, at every level that enough examples allow.

    `teachers` are what is learned from, the examples themselves if left out. `done` is told of each
    candidate of each fold: see `steps`.
    """
    rankings = {name: judge_ranking(ranking, examples) for name, ranking in baselines.items()}
    accuracies: dict[str, LevelAccuracy] = {}
    notes = []
    for level in levels:
        held_out, left = hold_out(teachers or examples, examples, level, by, done, regressors)
        notes += left
        if held_out:
            accuracies[level.name] = _accuracy(level, held_out, rankings)
    return Evaluation(
        by=by,
        examples=tuple(examples),
        noise_ceiling=estimate(
            {e: e.noise_ceiling for e in examples if e.noise_ceiling is not None}
        ),
        levels=accuracies,
        climbed=summarise(climbed_verdicts(accuracies)),
        baselines={name: summarise(found) for name, found in rankings.items() if found},
        notes=tuple(notes),
    )


def steps(
    examples: Sequence[Example],
    by: By,
    levels: Sequence[Level],
    regressors: Sequence[Regressor] | None = None,
) -> int:
    """How much `evaluate` will report as done."""
    groups = [group for level in levels for group in _groups(examples, level, by)]
    return sum(len(lessons(population, regressors)) for population, _ in groups)


def hold_out(
    teachers: Sequence[Example],
    asked: Sequence[Example],
    level: Level,
    by: By,
    done: Progress = lambda _: None,
    regressors: Sequence[Regressor] | None = None,
) -> tuple[dict[Example, Judged], list[str]]:
    """Predict each example asked for from teachers that share no model with its group.

    Also returns a sentence for each group, or the level, that could not be predicted.
    """
    design = make_design(teachers, level)
    known = {*design.models.tolist(), *design.data.tolist()}
    left_out = {population: LeftOut(design, population) for population in POPULATIONS}
    fitted: dict[tuple[Population, frozenset[str]], tuple[CalibratedPredictor, float]] = {}
    found: dict[Example, Judged] = {}
    notes = []
    for (population, _), group in _groups(asked, level, by).items():
        out = _left_out(teachers, group, by) & known
        if (population, out) not in fitted:
            try:
                choice = choose(left_out[population], out, regressors, done)
            except LayerpickError as error:
                notes.append(f"{level.name}, without the {by} of {group[0].name}: {error}")
                continue
            rest = replace(design, foretold=choice.foretold).without(out)
            made = CalibratedPredictor(rest, choice.lesson, population)
            fitted[population, out] = made, choice.criterion
        predictor, criterion = fitted[population, out]
        for example in group:
            prediction = predictor.predict(example.layer_features(), SEED)
            verdict = judge(example, prediction.contribution, prediction)
            found[example] = Judged(prediction, predictor, criterion, verdict)
    return found, notes


def climbed_verdicts(levels: Mapping[str, LevelAccuracy]) -> dict[Example, Verdict]:
    """Go from level to level as `layerpick suggest` does, in every example that has the first.

    Which levels tell more, and which layers go on, is decided without the example's model; layers
    that have left lack the features of what they were not measured by.
    """
    if FIRST not in levels:
        return {}
    found = {}
    for example, first in levels[FIRST].held_out.items():
        held = {n: each.held_out[example] for n, each in levels.items() if example in each.held_out}
        prediction, asked = first.prediction, example.layer_features()
        kept: tuple[int, ...] | None = None
        for level in worth_measuring({name: each.criterion for name, each in held.items()}):
            going = still_possible(prediction, kept) if level.narrowed else None
            if going is not None:
                asked = _only(asked, going, example.features[level.probes[-1]])
            after = held[level.name].predictor.predict(asked, SEED)
            prediction = join(prediction, after, going)
            kept = going or kept
        found[example] = judge(example, prediction.contribution, prediction)
    return found


def _only(asked: LayerFeatures, layers: Sequence[int], names: Collection[str]) -> LayerFeatures:
    """The features of these names are known of these layers only."""
    left = ~np.isin(np.arange(len(asked.depth)), layers)
    masked = {name: np.where(left, np.nan, asked.probes[name]) for name in names}
    return replace(asked, probes={**asked.probes, **masked})


def _left_out(teachers: Sequence[Example], group: Sequence[Example], by: By) -> frozenset[str]:
    """Hashes of the models, or data sets, that are left out for a group."""
    population, key = group[0].population, _KEYS[by](group[0])
    like = [each for each in teachers if each.population == population]
    same = [*(each for each in like if _KEYS[by](each) == key), *group]
    few = len({each.weights_hash for each in like}) < FEW_MODELS
    if few and by in ("task", "algorithm"):
        return frozenset(each.data_hash for each in same)
    return frozenset(each.weights_hash for each in same)


def shares(example: Example, level: Level) -> tuple[float, float]:
    """What a level costs, as shares of the sweep's written tokens and of its seconds."""
    parts = [
        (example.costs[probe], level.part(probe, example.features[probe])) for probe in level.probes
    ]
    parts += [(example.rollouts, 1.0)] if level.rollouts else []
    tokens = sum(cost.sampled_tokens * part for cost, part in parts)
    seconds = sum(cost.seconds * part for cost, part in parts)
    return tokens / max(example.tokens, 1), seconds / example.seconds


def find_way(name: str) -> By:
    """What to leave out, by name. Raises LayerpickError if there is no such way."""
    for way in WAYS:
        if way == name:
            return way
    raise LayerpickError(f"Cannot leave out by '{name}': use {', '.join(WAYS)}.")


def find_levels(examples: Sequence[Example]) -> list[Level]:
    """The levels whose probes at least one example has."""
    return [level for level in LEVELS.values() if any(usable(each, level) for each in examples)]


def _groups(
    asked: Sequence[Example], level: Level, by: By
) -> dict[tuple[Population, Hashable], list[Example]]:
    groups: dict[tuple[Population, Hashable], list[Example]] = {}
    for example in asked:
        if usable(example, level):
            groups.setdefault((example.population, _KEYS[by](example)), []).append(example)
    return groups


def _accuracy(
    level: Level,
    held_out: Mapping[Example, Judged],
    rankings: Mapping[str, Mapping[Example, Verdict]],
) -> LevelAccuracy:
    verdicts = {example: held.verdict for example, held in held_out.items()}
    share = {example: shares(example, level) for example in held_out}
    return LevelAccuracy(
        level=level,
        held_out=held_out,
        means=summarise(verdicts),
        share_of_ceiling=_share_of_ceiling(verdicts),
        against={name: compare(verdicts, found) for name, found in rankings.items() if found},
        token_share=estimate({example: both[0] for example, both in share.items()}),
        time_share=estimate({example: both[1] for example, both in share.items()}),
        lacking=make_design(tuple(held_out), level).lacking,
    )


def _share_of_ceiling(verdicts: Mapping[Example, Verdict]) -> float | None:
    known = [
        (v["spearman"], e.noise_ceiling) for e, v in verdicts.items() if e.noise_ceiling is not None
    ]
    reached = sum(rho for rho, _ in known)
    ceiling = sum(ceiling for _, ceiling in known)
    return reached / ceiling if ceiling > 0 else None
