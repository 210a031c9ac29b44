"""What to learn for a population, and from whom: judged inside whatever has been left out already.

A candidate is a regressor and the weight of the other population's sweeps. A population of few
models is too little to choose by, and learns an order known before. Models are left out in
turn, and data sets too where models are few. Predictions of what was left out are kept, because an
outer fold leaving out A with an inner one leaving out B needs the same fit as the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from layerpick.calibration.judging.metrics import regret, spearman
from layerpick.calibration.predictors.candidates import CANDIDATES
from layerpick.calibration.predictors.design import FEW_MODELS, FEWEST_GROUPS, Design
from layerpick.calibration.predictors.estimator import as_others, fitted, inputs
from layerpick.calibration.predictors.regressors import (
    BLENDED,
    Blend,
    GradientAndGains,
    Regressor,
)
from layerpick.calibration.sweeps.population import Population
from layerpick.training.errors import LayerpickError

OTHERS: Mapping[Population, tuple[float, ...]] = {
    "pretrained": (0.1, 0.0, 1.0),
    # Their layers rank as those of pretrained models do by chance only: see docs/agreement.md.
    "from scratch": (0.0,),
}
"""Weights of the other population that are compared, the own one's being 1."""
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Lesson:
    """How a predictor learns."""

    regressor: Regressor
    others: float = 0.0
    """Weight of the other population's sweeps together, the own ones' being 1."""

    @property
    def known_before(self) -> bool:
        """Whether its order of the layers is not learned from any sweep."""
        return isinstance(self.regressor, GradientAndGains)

    def __str__(self) -> str:
        return f"{self.regressor}, others × {self.others:g}" if self.others else str(self.regressor)


def lessons(
    population: Population, regressors: Sequence[Regressor] | None = None
) -> tuple[Lesson, ...]:
    """All that is compared, of the built-in regressors or of these."""
    chosen = CANDIDATES if regressors is None else regressors
    return tuple(
        Lesson(regressor, weight) for weight, regressor in product(OTHERS[population], chosen)
    )


class LeftOut:
    """Predictions of one population's models and data sets by predictors fitted without them."""

    def __init__(self, design: Design, population: Population = "pretrained"):
        self.design = design
        self.population = population
        self._inputs = inputs(design)
        self._rest: dict[frozenset[str], tuple[Design, Design]] = {}
        self._kept: dict[tuple[Lesson, frozenset[str]], np.ndarray] = {}

    def rest(self, groups: frozenset[str]) -> tuple[Design, Design]:
        """The own rows and the others, without these groups."""
        if groups not in self._rest:
            self._rest[groups] = self.design.without(groups).of(self.population)
        return self._rest[groups]

    def predictions(self, lesson: Lesson, groups: frozenset[str]) -> np.ndarray:
        """(rows,), float64: predictions of the rows left out, not a number elsewhere."""
        if isinstance(lesson.regressor, Blend):
            members = [replace(lesson, regressor=each) for each in BLENDED]
            return np.mean([self.predictions(each, groups) for each in members], axis=0)
        if (lesson, groups) not in self._kept:
            out = self.design.rows_of(groups)
            own, others = self.rest(groups)
            fit = fitted(own, lesson.regressor, as_others(others, lesson.others))
            found = np.full(len(out), np.nan)
            found[out] = fit.predict(self._inputs[out])
            self._kept[lesson, groups] = found
        return self._kept[lesson, groups]


@dataclass(frozen=True)
class Choice:
    """The lesson chosen, and the criterion of all of them."""

    lesson: Lesson
    criteria: Mapping[str, float]
    """By lesson: mean over what was left out of Spearman's ρ minus regret."""
    foretold: np.ndarray
    """(rows of the design,), float64: predictions for each model (or data set) by what is fitted
    without it and would have been chosen without it; not a number outside the population."""

    @property
    def criterion(self) -> float:
        """Of the lesson chosen."""
        return self.criteria[str(self.lesson)]


def choose(
    left_out: LeftOut,
    groups: frozenset[str],
    regressors: Sequence[Regressor] | None = None,
    done: Progress = lambda _: None,
) -> Choice:
    """Choose by what is not in `groups`, each model (or data set) left out together with these.

    The criterion is the mean of ρ − regret, over the sweeps left out together and then over what
    was left out. `done` is told of all `lessons`, however many are candidates. Raises
    LayerpickError with too little to leave out.
    """
    candidates = compared = lessons(left_out.population, regressors)
    own, others = left_out.rest(groups)
    if len(own.groups) < FEWEST_GROUPS:
        raise LayerpickError(
            f"A predictor needs measured sweeps of at least {FEWEST_GROUPS} models, and there are "
            f"{len(own.groups)} with the probes of level '{left_out.design.level.name}': measure "
            f"more with `layerpick sweep`."
        )
    if regressors is None and _few(left_out.design, left_out.population):
        candidates = (Lesson(GradientAndGains()),)
    elif not len(others.targets):
        candidates = tuple(dict.fromkeys(Lesson(each.regressor) for each in candidates))
    inner = set(own.sweeps.tolist())
    scores = np.zeros((len(candidates), len(own.groups)))
    for number, lesson in enumerate(candidates):
        scores[number] = [_score(left_out, lesson, groups, group, inner) for group in own.groups]
        done(len(compared) // len(candidates))
    criteria = scores.mean(axis=1)
    return Choice(
        candidates[int(criteria.argmax())],
        {str(each): float(v) for each, v in zip(candidates, criteria, strict=True)},
        _foretold(left_out, groups, candidates, scores),
    )


def _foretold(
    left_out: LeftOut,
    outer: frozenset[str],
    candidates: Sequence[Lesson],
    scores: np.ndarray,
) -> np.ndarray:
    """See `Choice.foretold`; scores (candidates, groups of what is not in `outer`)."""
    design, (own, _) = left_out.design, left_out.rest(outer)
    found = np.full(len(design.targets), np.nan)
    inner = np.isin(design.sweeps, own.sweeps)
    for group in np.unique(own.alike).tolist():
        others = [number for number, each in enumerate(own.groups) if each != group]
        lesson = candidates[int(scores[:, others].mean(axis=1).argmax())]
        rows = inner & design.rows_of(frozenset({group}))
        found[rows] = left_out.predictions(lesson, outer | {group})[rows]
    return found


def _few(design: Design, population: Population) -> bool:
    """Whether a population has too few models to choose by, and what is known before."""
    models = {each.weights_hash for each in design.examples if each.population == population}
    known = GradientAndGains.known(design.features)
    # Models made from scratch are not in this order: see docs/accuracy.md.
    return bool(known) and population == "pretrained" and len(models) < FEW_MODELS


def _score(
    left_out: LeftOut, lesson: Lesson, outer: frozenset[str], group: str, inner: set[int]
) -> float:
    design = left_out.design
    predicted = left_out.predictions(lesson, outer | {group})
    scores = []
    for sweep in inner & set(design.sweeps[design.rows_of(frozenset({group}))].tolist()):
        rows = design.sweeps == sweep
        measured, guess = design.targets[rows], predicted[rows]
        scores.append(spearman(measured, guess) - regret(measured, guess))
    return float(np.mean(scores))
