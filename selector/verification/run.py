"""Prediction beside measurement: was the advice right?

What was predicted comes from a suggestion, what is true from a measured sweep, or, where there is
none, from the scores of a run and of full-parameter training.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from layerpick.calibration.sweeps.measured import Reading, no_gain
from layerpick.calibration.sweeps.values import Score, Sweep
from layerpick.selector.suggestion.result import Suggestion
from layerpick.training.errors import LayerpickError
from layerpick.training.runs.folder import RunDescription, RunFolder, RunResult
from layerpick.training.sweeps.records import RunSettings
from layerpick.training.values import Record

SCHEMA_VERSION = 1
MAY_DIFFER = {"engine", "dtype", "model", "revision", "rates"}
"""Settings of a run that need not be its sweep's."""


class MeasuredScore(Record):
    """A score on held-out prompts."""

    mean: float
    error: float | None = Field(description="standard error")


class LayerVerdict(Record):
    """One layer, predicted and measured."""

    layer: int
    predicted: float | None = None
    interval: tuple[float, float] | None = None
    measured: float | None = Field(default=None, description="contribution")
    error: float | None = Field(default=None, description="standard error of the contribution")

    @property
    def held(self) -> bool | None:
        """Whether the interval holds the measured contribution."""
        if self.interval is None or self.measured is None:
            return None
        return self.interval[0] <= self.measured <= self.interval[1]


class Verification(Record):
    """How a pick turned out."""

    schema_version: int = SCHEMA_VERSION
    model: str
    task: str
    algorithm: str
    measured_by: str = Field(description="what the measurement is")
    pick: LayerVerdict
    picked: str = Field(description="what was picked, in words")
    base: MeasuredScore
    trained: MeasuredScore | None = Field(description="score with the pick trained")
    full: MeasuredScore | None = Field(description="score after full-parameter training")
    layers: tuple[LayerVerdict, ...] = Field(description="all that were predicted or measured")
    coverage: float | None = Field(description="share of measurements that intervals should hold")
    interval_held: bool | None = Field(description="of the pick")
    intervals_held: float | None = Field(description="share of all measured layers")
    rank: int | None = Field(description="of the pick among the measured layers; 1 is the best")
    best: int | None = Field(description="the best measured layer")
    regret: float | None = Field(description="best measured contribution less the pick's")
    rank_correlation: float | None = Field(description="Spearman, predicted against measured")
    noise_ceiling: float | None = Field(description="what a repeated sweep reaches")
    differences: tuple[str, ...] = Field(
        description="settings in which the run is not the sweep's; empty where there is no run"
    )
    refusal: str | None = Field(description="why contributions mean nothing here, if so")


def verify_suggestion(suggestion: Suggestion, reading: Reading) -> Verification:
    """The suggestion's layers against a sweep of the same model, task and algorithm.

    Raises LayerpickError when the sweep is about something else, or lacks the pick.
    """
    model, task = suggestion.model, suggestion.task
    _same(reading.settings, model.weights_hash, task.name, task.algorithm)
    measured = _contributions(reading)
    if suggestion.pick not in reading.layers:
        raise LayerpickError(
            f"The sweep has not measured layer {suggestion.pick}, the pick: run `layerpick sweep "
            f"--layers {suggestion.pick}` in its folder."
        )
    return _verification(
        reading, suggestion, suggestion.pick, measured, reading.layers[suggestion.pick].score
    )


def verify_run(run: RunFolder, suggestion: Suggestion | None, reading: Reading) -> Verification:
    """A run's own score in terms of a sweep of the same model, task and algorithm.

    Raises LayerpickError when the sweep is about something else or the run is not finished.
    """
    description, result = finished(run)
    wanted = description.settings
    _same(reading.settings, wanted.weights_hash, wanted.task, wanted.algorithm)
    score = Score(result.trained.mean, result.trained.error)
    pick = _one_layer(description)
    sweep = reading.sweep
    own = _sweep_of(reading.settings, sweep.base, sweep.full, score, pick)
    measured = dict(_contributions(reading))
    if not reading.refusal:
        measured[pick] = (own.contribution(pick), own.contribution_error(pick))
    return _verification(reading, suggestion, pick, measured, score, description)


def verify_pair(run: RunFolder, suggestion: Suggestion | None, full: Score | None) -> Verification:
    """A run with the score of full-parameter training, or with nothing but its own base score.

    Raises LayerpickError when the run is not finished.
    """
    description, result = finished(run)
    pick = _one_layer(description)
    base = Score(result.base.mean, result.base.error)
    score = Score(result.trained.mean, result.trained.error)
    predicted = _predicted(suggestion).get(pick)
    verdict = predicted or LayerVerdict(layer=pick)
    refusal: str | None = "There is no score of full-parameter training: give --full or --sweep."
    if full is not None:
        gain_error = float(np.hypot(base.error or 0.0, full.error or 0.0))
        refusal = no_gain(Score(full.mean - base.mean, gain_error))
        if refusal is None:
            own = _sweep_of(description.settings, base, full, score, pick)
            verdict = verdict.model_copy(
                update={
                    "measured": own.contribution(pick),
                    "error": own.contribution_error(pick),
                }
            )
    return Verification(
        model=description.settings.model,
        task=description.settings.task,
        algorithm=description.settings.algorithm,
        measured_by="one run" if full is None else "one run and the full-parameter score",
        pick=verdict,
        picked=in_words(description.layers),
        base=_record(base),
        trained=_record(score),
        full=_record(full) if full else None,
        layers=(verdict,),
        coverage=suggestion.coverage if suggestion else None,
        interval_held=verdict.held,
        intervals_held=None,
        rank=None,
        best=None,
        regret=None,
        rank_correlation=None,
        noise_ceiling=None,
        differences=(),
        refusal=refusal,
    )


def _verification(
    reading: Reading,
    suggestion: Suggestion | None,
    pick: int,
    measured: Mapping[int, tuple[float, float | None]],
    score: Score,
    run: RunDescription | None = None,
) -> Verification:
    predicted = _predicted(suggestion)
    layers = tuple(
        predicted.get(layer, LayerVerdict(layer=layer)).model_copy(
            update=dict(zip(("measured", "error"), measured.get(layer, (None, None)), strict=True))
        )
        for layer in sorted({pick} | set(predicted) | set(measured))
    )
    verdict = next(layer for layer in layers if layer.layer == pick)
    contributions = {layer: value for layer, (value, _) in measured.items()}
    held = [layer.held for layer in layers if layer.held is not None]
    own = contributions.get(pick)
    return Verification(
        model=reading.settings.model,
        task=reading.settings.task,
        algorithm=reading.settings.algorithm,
        measured_by=f"a sweep of {len(reading.layers)} layers, "
        f"{len(reading.full.seeds)} seed{'s' if len(reading.full.seeds) > 1 else ''}",
        pick=verdict,
        picked=in_words(run.layers if run else (pick,)),
        base=_record(reading.base.score),
        trained=_record(score),
        full=_record(reading.full.score),
        layers=layers,
        coverage=suggestion.coverage if suggestion else None,
        interval_held=verdict.held,
        intervals_held=float(np.mean(held)) if held else None,
        rank=None if own is None else 1 + sum(value > own for value in contributions.values()),
        best=max(contributions, key=contributions.__getitem__) if contributions else None,
        regret=None if own is None else max(contributions.values()) - own,
        rank_correlation=_correlation(layers),
        noise_ceiling=reading.noise_ceiling,
        differences=_differences(run.settings, reading.settings) if run else (),
        refusal=reading.refusal,
    )


def _contributions(reading: Reading) -> dict[int, tuple[float, float | None]]:
    if reading.refusal:
        return {}
    sweep = reading.sweep
    return {
        layer: (sweep.contribution(layer), sweep.contribution_error(layer))
        for layer in reading.layers
    }


def _predicted(suggestion: Suggestion | None) -> dict[int, LayerVerdict]:
    return {
        each.layer: LayerVerdict(layer=each.layer, predicted=each.predicted, interval=each.interval)
        for each in (suggestion.layers if suggestion else ())
    }


def _correlation(layers: tuple[LayerVerdict, ...]) -> float | None:
    from scipy.stats import spearmanr

    pairs = [(x.predicted, x.measured) for x in layers if None not in (x.predicted, x.measured)]
    if len(pairs) < 3:
        return None
    value = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return value if np.isfinite(value) else None


def _sweep_of(settings: RunSettings, base: Score, full: Score, score: Score, layer: int) -> Sweep:
    """A sweep with one run in it, whose arithmetic is everywhere the same."""
    return Sweep(
        model=settings.model,
        num_layers=settings.layers,
        task=settings.task,
        algorithm=settings.algorithm,
        dataset=settings.source,
        base=base,
        full=full,
        layers={layer: score},
        source="measured",
    )


def finished(run: RunFolder) -> tuple[RunDescription, RunResult]:
    """What a run is and what came of it. Raises LayerpickError when it is not finished."""
    description, result = run.description(), run.result()
    if result is None:
        raise LayerpickError(
            f"The run in {run.path} is not finished: give the command that started it once more."
        )
    return description, result


def _one_layer(description: RunDescription) -> int:
    """The layer that stands for the run: its only or first one."""
    if description.layers is None:
        raise LayerpickError(
            "A full-parameter run has no contribution of its own: verify a run of some layers, "
            "and give this one with --full."
        )
    return description.layers[0]


def _same(settings: RunSettings, weights_hash: str, task: str, algorithm: str) -> None:
    pairs = {
        "weights": (settings.weights_hash, weights_hash),
        "task": (settings.task, task),
        "algorithm": (settings.algorithm, algorithm),
    }
    for what, (swept, wanted) in pairs.items():
        if swept != wanted:
            raise LayerpickError(
                f"The sweep of {settings.model} is about other {what} ({swept:.40}, not "
                f"{wanted:.40}): give the sweep of what was picked."
            )


def _differences(run: RunSettings, sweep: RunSettings) -> tuple[str, ...]:
    """Settings that a run does not share with its sweep, in words."""
    return tuple(
        f"{name}: {own} here, {swept} in the sweep"
        for name, (own, swept) in run.differences(sweep).items()
        if name not in MAY_DIFFER
    )


def in_words(layers: tuple[int, ...] | None) -> str:
    """What was trained."""
    if layers is None:
        return "all parameters"
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"


def _record(score: Score) -> MeasuredScore:
    return MeasuredScore(mean=score.mean, error=score.error)
