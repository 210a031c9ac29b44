"""Predictors as files: training examples and what was chosen to learn from them, as JSON.

They are refitted when they are loaded: nothing is ever unpickled, and anyone can read the file.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from layerpick.calibration.paths import SHIPPED_PREDICTORS
from layerpick.calibration.predictors.calibrated import CalibratedPredictor
from layerpick.calibration.predictors.candidates import from_settings, settings_of
from layerpick.calibration.predictors.choice import Choice, LeftOut, Lesson, Progress, choose
from layerpick.calibration.predictors.design import Design, make_design
from layerpick.calibration.predictors.levels import LEVELS, Level, find_level
from layerpick.calibration.predictors.regressors import Regressor
from layerpick.calibration.sweeps.examples import TrainingExample
from layerpick.calibration.sweeps.population import POPULATIONS, Population
from layerpick.training.errors import LayerpickError
from layerpick.training.files import cache_folder, write_text
from layerpick.training.reading import read_record, reading
from layerpick.training.sweeps.records import Rates
from layerpick.training.values import Feature, NonNegative, Number, Record

SCHEMA_VERSION: Literal[2] = 2
DIGITS = 5
"""Significant digits that are stored."""
ENOUGH = 0.9
"""Share of a probe's features that must be there for its level to be used."""
_PACKAGES = ("layerpick", "mapie", "numpy", "scikit-learn", "scipy")


class StoredExample(Record):
    """A training example as JSON; null where a layer was not measured."""

    model: str
    weights_hash: str
    family: str
    task: str
    data_hash: str
    algorithm: str
    base_reward: Number
    contributions: tuple[Number | None, ...] = Field(min_length=1)
    errors: tuple[NonNegative | None, ...]
    features: dict[str, dict[str, tuple[Feature | None, ...]]]
    rates: Rates = "shared"
    foretold: tuple[Number | None, ...] | None = Field(
        default=None, description="what was predicted of it by what was chosen without it"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Everything has a place for every layer, and what was measured has an error."""
        known = [value is None for value in self.contributions]
        if known != [value is None for value in self.errors]:
            raise ValueError(f"{self.model} has contributions without errors")
        if self.foretold is not None and len(self.foretold) != len(self.contributions):
            raise ValueError(f"{self.model} is foretold with {len(self.foretold)} layers")
        for probe, own in self.features.items():
            for name, values in own.items():
                if len(values) != len(self.contributions):
                    raise ValueError(f"{probe}.{name} of {self.model} has {len(values)} layers")
        return self

    def example(self) -> TrainingExample:
        """The example, with not-a-number for null."""
        return TrainingExample(
            **self.model_dump(exclude={"contributions", "errors", "features", "foretold"}),
            contributions=_array(self.contributions),
            errors=_array(self.errors),
            foretold=None if self.foretold is None else _array(self.foretold),
            features={
                probe: {name: _array(values) for name, values in own.items()}
                for probe, own in self.features.items()
            },
        )


class StoredLesson(Record):
    """What was chosen for a population."""

    regressor: dict[str, Any]
    others: NonNegative
    criteria: dict[str, Number] = Field(
        description="by candidate: mean ρ − regret of what was left out, by which it was chosen"
    )

    @model_validator(mode="after")
    def _of_this_version(self) -> Self:
        """Its regressor exists."""
        try:
            from_settings(self.regressor)
        except LayerpickError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def criterion(self) -> float:
        """That of what was chosen: the best of all."""
        return max(self.criteria.values(), default=float("-inf"))

    @property
    def lesson(self) -> Lesson:
        """The lesson itself."""
        return Lesson(from_settings(self.regressor), self.others)


class StoredPredictor(Record):
    """The predictor of one level as its file has it."""

    schema_version: Literal[2] = SCHEMA_VERSION
    level: str
    lessons: dict[Population, StoredLesson]
    examples: tuple[StoredExample, ...] = Field(min_length=1)
    versions: dict[str, str]

    @model_validator(mode="after")
    def _of_this_version(self) -> Self:
        """Its level exists, every population has a lesson, every example the level's probes."""
        if self.level not in LEVELS:
            raise ValueError(f"there is no level '{self.level}'")
        for population in POPULATIONS:
            if population not in self.lessons:
                raise ValueError(f"there is no lesson for {population} models")
        for example in self.examples:
            for probe in LEVELS[self.level].probes:
                if probe not in example.features:
                    raise ValueError(f"{example.model} lacks the probe '{probe}'")
        return self

    def fit(
        self, population: Population = "pretrained", without: str | None = None
    ) -> CalibratedPredictor:
        """Refit for a population, without the model of that weights hash.

        Nobody is asked about the lessons that they gave.

        Raises LayerpickError when its settings are not this version's.
        """
        examples = [stored.example() for stored in self.examples if stored.weights_hash != without]
        remedy = f"run `layerpick calibrate` again, or delete it from {user_predictors()}"
        with reading(f"The predictor of the level '{self.level}'", "a predictor", remedy):
            design = make_design(examples, find_level(self.level))
            return CalibratedPredictor(design, self.lessons[population].lesson, population)

    def knows(self, features: Collection[str]) -> bool:
        """Whether these features are enough: most of what each probe of the level taught it."""
        for probe in find_level(self.level).probes:
            shared = set.intersection(*(set(each.features[probe]) for each in self.examples))
            if len(shared & set(features)) < ENOUGH * len(shared):
                return False
        return True


def calibrate(
    examples: Sequence[TrainingExample],
    level: Level,
    done: Progress = lambda _: None,
    regressors: Sequence[Regressor] | None = None,
) -> StoredPredictor:
    """Choose what to learn at a level for each population, and put its predictor together.

    Raises LayerpickError when too few models have the level's probes.
    """
    rounded = [_stored(example, level).example() for example in examples]
    design = make_design(rounded, level)
    choices = {
        population: choose(LeftOut(design, population), frozenset(), regressors, done)
        for population in POPULATIONS
    }
    return _put_together(design, choices)


def write_predictor(predictor: StoredPredictor, folder: Path) -> Path:
    """Write `<level>.json`, whole or not at all; an older one stays until then."""
    path = folder / f"{predictor.level}.json"
    write_text(path, predictor.model_dump_json() + "\n")
    return path


def load_predictors(folder: Path) -> dict[str, StoredPredictor]:
    """Predictors of a folder by level, not yet fitted; those without a file are absent.

    Raises LayerpickError for a file that is no predictor.
    """
    found = {}
    for level in LEVELS:
        path = folder / f"{level}.json"
        if not path.is_file():
            continue
        what = f"a predictor, version {SCHEMA_VERSION}"
        remedy = "delete it, and run `layerpick calibrate` to make it again"
        found[level] = read_record(path, StoredPredictor, what, remedy)
        if found[level].level != level:
            raise LayerpickError(
                f"{path} is the predictor of the level '{found[level].level}': {remedy}."
            )
    return found


def user_predictors() -> Path:
    """Where `layerpick calibrate` puts predictors: before the shipped ones when suggesting."""
    return cache_folder() / "predictors"


def own_or_shipped(name: str) -> Path:
    """A file beside the predictors: the user's own, or else the shipped one."""
    own = user_predictors() / name
    return own if own.is_file() else SHIPPED_PREDICTORS / name


def available_predictors() -> dict[str, StoredPredictor]:
    """The user's own predictors, and the shipped ones of the levels that these lack."""
    return {**load_predictors(SHIPPED_PREDICTORS), **load_predictors(user_predictors())}


def best_predictor(
    predictors: Mapping[str, StoredPredictor],
    features: Collection[str],
    population: Population = "pretrained",
    without: str | None = None,
) -> CalibratedPredictor | None:
    """The dearest predictor that the measured features allow, fitted; None if there is none.

    `without` is the weights hash of the model asked about, whose own sweeps it must not know.
    """
    for level in reversed(LEVELS):
        if level in predictors and predictors[level].knows(features):
            return predictors[level].fit(population, without)
    return None


def _put_together(design: Design, choices: Mapping[Population, Choice]) -> StoredPredictor:
    return StoredPredictor(
        level=design.level.name,
        lessons={
            population: StoredLesson(
                regressor=settings_of(choice.lesson.regressor),
                others=choice.lesson.others,
                criteria={name: _short(value) or 0.0 for name, value in choice.criteria.items()},
            )
            for population, choice in choices.items()
        },
        examples=tuple(_stored(each, design.level) for each in _with_foretold(design, choices)),
        versions={name: version(name) for name in _PACKAGES},
    )


def _with_foretold(
    design: Design, choices: Mapping[Population, Choice]
) -> Iterator[TrainingExample]:
    """The design's examples with what the choice of their population foretells of them."""
    for number, example in enumerate(design.examples):
        foretold = np.full(example.layers, np.nan)
        known = choices[example.population].foretold[design.sweeps == number]
        foretold[example.measured] = known
        yield replace(example, foretold=foretold)


def _stored(example: TrainingExample, level: Level) -> StoredExample:
    return StoredExample(
        model=example.model,
        weights_hash=example.weights_hash,
        family=example.family,
        task=example.task,
        data_hash=example.data_hash,
        algorithm=example.algorithm,
        base_reward=_short(example.base_reward) or 0.0,
        contributions=tuple(map(_short, example.contributions)),
        errors=tuple(map(_short, example.errors)),
        features={
            probe: {name: tuple(map(_short, values)) for name, values in level.used(own).items()}
            for probe, own in example.features.items()
            if probe in level.probes
        },
        rates=example.rates,
        foretold=None if example.foretold is None else tuple(map(_short, example.foretold)),
    )


def _short(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values])
