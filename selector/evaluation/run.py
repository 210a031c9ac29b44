"""From folders of sweeps to an evaluation beside every baseline ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np

from layerpick.calibration.judging.accuracy import Ranking
from layerpick.calibration.judging.baselines import BASELINES, Baseline
from layerpick.calibration.judging.evaluation import Evaluation, find_levels, find_way, steps
from layerpick.calibration.judging.evaluation import evaluate as judge
from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.predictors.candidates import with_own
from layerpick.calibration.predictors.levels import find_level
from layerpick.calibration.predictors.position import load_position_predictor
from layerpick.calibration.predictors.rates import RatesJudged, judge_rates, read_cases
from layerpick.calibration.sweeps.examples import Example, Loaded, load_examples
from layerpick.calibration.sweeps.population import POPULATIONS, Population
from layerpick.selector.progress import Reporter, Silent
from layerpick.training.errors import LayerpickError

POSITION = "position (Qwen sweeps)"


@dataclass(frozen=True)
class Evaluated:
    """Evaluations by population, and what could not enter them."""

    evaluations: Mapping[Population, Evaluation]
    """Of pretrained models first; a population without sweeps is absent."""
    left_out: tuple[str, ...]
    """A sentence for each sweep that taught nothing."""
    rates: RatesJudged | None = None
    """Of the learning rates advised; None with fewer than two models swept at several."""


def evaluate(
    sweeps: Sequence[Path] | None = None,
    *,
    leave_out: str = "model",
    level: str | None = None,
    regressor: str | None = None,
    reporter: Reporter | None = None,
) -> Evaluated:
    """Judge predictions of left-out models; of one level, or of all that the sweeps allow.

    Each population is judged by itself; predictors may learn from all. `sweeps` are folders, the
    shipped one if left out; `leave_out` is model, family, task or algorithm; `regressor` is one's
    own, as `file.py:Class`, beside the built-in ones. Raises LayerpickError when no level can be
    evaluated.
    """
    by, reporter = find_way(leave_out), reporter or Silent()
    regressors = with_own(regressor)
    roots = sweeps or [SHIPPED_SWEEPS]
    loaded = load(roots, reporter)
    teachers = loaded.rankable
    levels = find_levels(teachers) if level is None else [find_level(level)]
    done = reporter.stage("predicting what was left out", steps(teachers, by, levels, regressors))
    found = {}
    for population in POPULATIONS:
        own = [example for example in teachers if example.population == population]
        if own:
            found[population] = judge(own, by, levels, rankings(), done, regressors, teachers)
    if not any(each.levels for each in found.values()):
        notes = [note for each in found.values() for note in each.notes]
        raise LayerpickError(
            notes[0]
            if notes
            else "No sweep has the probes of a level: run `layerpick sweep` with --probes all."
        )
    return Evaluated(found, loaded.left_out, judge_rates(read_cases(roots)))


def load(roots: Sequence[Path], reporter: Reporter) -> Loaded:
    """Read examples, and say which sweeps are none. Raises LayerpickError if all are none."""
    loaded = load_examples(roots)
    for sentence in loaded.left_out:
        reporter.note(f"Left out: {sentence}")
    if not loaded.rankable:
        raise LayerpickError(
            f"No sweep below {', '.join(map(str, roots))} has features and layers that gained: "
            f"measure some with `layerpick sweep`."
        )
    return loaded


def rankings() -> dict[str, Ranking]:
    """What a person would rank layers by instead."""
    position = load_position_predictor()
    return {
        **{name: partial(_scores, baseline) for name, baseline in BASELINES.items()},
        POSITION: lambda example: position.predict(example.layer_features(), 0).contribution,
    }


def _scores(baseline: Baseline, example: Example) -> np.ndarray:
    # A seed of the sweep's own, lest all models of one depth get the same random order.
    return baseline.scores(example.layers, example.by_name, seed=crc32(example.name.encode()))
