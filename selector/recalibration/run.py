"""Predictors made anew from the shipped sweeps and a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerpick.calibration.judging.accuracy import Estimate, compare, summarise
from layerpick.calibration.judging.evaluation import find_levels, hold_out, steps
from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.predictors.candidates import with_own
from layerpick.calibration.predictors.choice import lessons
from layerpick.calibration.predictors.levels import LEVELS, Level
from layerpick.calibration.predictors.rates import (
    StoredRates,
    learn_rates,
    read_cases,
    write_rates,
)
from layerpick.calibration.predictors.regressors import Regressor
from layerpick.calibration.predictors.stored import (
    StoredPredictor,
    user_predictors,
    write_predictor,
)
from layerpick.calibration.predictors.stored import calibrate as fit_level
from layerpick.calibration.races.store import RACED_LEVELS, learn_races, write_rules
from layerpick.calibration.sweeps.examples import Example, load_examples
from layerpick.calibration.sweeps.population import POPULATIONS, Population
from layerpick.selector.progress import Reporter, Silent
from layerpick.training.errors import LayerpickError


@dataclass(frozen=True)
class Change:
    """Accuracy on models left out, of the shipped sweeps' predictor and of the new one."""

    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate]
    difference: Mapping[str, Estimate]
    """After − before, paired by sweep."""


@dataclass(frozen=True)
class NewPredictor:
    """One level's predictor as written."""

    level: str
    path: Path
    lessons: Mapping[Population, str]
    """What was chosen for each population."""
    sweeps: int
    models: int
    everywhere: Change | None
    """On all sweeps; None without sweeps of the user's own."""
    own: Change | None
    """On the user's own sweeps alone."""


@dataclass(frozen=True)
class Calibrated:
    """What came of a calibration."""

    predictors: tuple[NewPredictor, ...]
    own_sweeps: int
    left_out: tuple[str, ...]
    """A sentence for each sweep that taught nothing, and each level without a predictor."""


def calibrate(
    sweeps: Sequence[Path] = (),
    *,
    out: Path | None = None,
    regressor: str | None = None,
    races: bool = False,
    reporter: Reporter | None = None,
) -> Calibrated:
    """Fit every level that the sweeps allow and write it to `out`, whole or not at all.

    `sweeps` are folders of one's own, added to the shipped ones; `regressor` is one's own, as
    `file.py:Class`, beside the built-in ones. With `races` the rules of races are learned anew too,
    which leaves out every model at every level. `suggest` looks in the folder used if `out` is left
    out. Nothing is written before everything is fitted. Raises LayerpickError when no level can be.
    """
    own, folder, reporter = sweeps, out or user_predictors(), reporter or Silent()
    regressors = with_own(regressor)
    shipped = load_examples([SHIPPED_SWEEPS]).rankable
    loaded = load_examples([SHIPPED_SWEEPS, *own])
    examples = loaded.rankable
    known = {each.folder for each in shipped}
    added = tuple(each for each in examples if each.folder not in known)
    notes = list(loaded.left_out)
    for sentence in notes:
        reporter.note(f"Left out: {sentence}")
    if own and not added:
        raise LayerpickError(
            f"No sweep below {', '.join(map(str, own))} has features and contributions and is not "
            f"shipped with layerpick already: measure some with `layerpick sweep`."
        )
    if not examples:
        raise LayerpickError(
            "No sweep has features and contributions: measure some with `layerpick sweep`, and "
            "name their folder with --sweeps."
        )
    total = sum(len(lessons(population, regressors)) for population in POPULATIONS)
    made: list[tuple[StoredPredictor, Change | None, Change | None]] = []
    for level in find_levels(examples):
        done = reporter.stage(f"calibrating: {level.name}", total)
        try:
            predictor = fit_level(examples, level, done, regressors)
        except LayerpickError as error:
            notes.append(f"Level {level.name}: {error}")
            reporter.note(notes[-1])
            continue
        changes = _changes(shipped, added, level, regressors, reporter) if added else (None, None)
        made.append((predictor, *changes))
    if not made:
        raise LayerpickError(notes[-1] if notes else "No sweep has the probes of a level.")
    rates = _rates([SHIPPED_SWEEPS, *own], reporter)
    if races:
        levels = [LEVELS[name] for name in RACED_LEVELS]
        done = reporter.stage("learning races", steps(loaded.examples, "model", levels))
        write_rules(learn_races(loaded.examples, [SHIPPED_SWEEPS, *own], done), folder)
    if rates is not None:
        write_rates(rates, folder)
    return Calibrated(
        predictors=tuple(
            NewPredictor(
                level=predictor.level,
                path=write_predictor(predictor, folder),
                lessons={name: str(kept.lesson) for name, kept in predictor.lessons.items()},
                sweeps=len(predictor.examples),
                models=len({example.weights_hash for example in predictor.examples}),
                everywhere=everywhere,
                own=alone,
            )
            for predictor, everywhere, alone in made
        ),
        own_sweeps=len(added),
        left_out=tuple(notes),
    )


def _rates(roots: Sequence[Path], reporter: Reporter) -> StoredRates | None:
    try:
        return learn_rates(read_cases(roots))
    except LayerpickError as error:
        reporter.note(str(error))
        return None


def _changes(
    shipped: Sequence[Example],
    added: Sequence[Example],
    level: Level,
    regressors: Sequence[Regressor] | None,
    reporter: Reporter,
) -> tuple[Change | None, Change | None]:
    """How accuracy on left-out models changed: on all sweeps, and on those added alone."""
    everything = [*shipped, *added]
    total = 2 * steps(everything, "model", [level], regressors)
    done = reporter.stage(f"comparing: {level.name}", total)
    before, _ = hold_out(shipped, everything, level, "model", done, regressors)
    after, _ = hold_out(everything, everything, level, "model", done, regressors)
    if not before:
        return None, None
    verdicts = [{e: held.verdict for e, held in found.items()} for found in (before, after)]
    own = [{e: v for e, v in found.items() if e in set(added)} for found in verdicts]
    return _change(*verdicts), _change(*own) if own[0] else None


def _change(before: Mapping, after: Mapping) -> Change:
    return Change(summarise(before), summarise(after), compare(after, before))
