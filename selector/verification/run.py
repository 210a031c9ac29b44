"""Prediction beside measurement: was the advice right?

What was predicted comes from a suggestion, what is true from a measured sweep, or, where there is
none, from the scores of a run and of full-parameter training.
"""

from __future__ import annotations

import numpy as np

from layerpick.calibration.sweeps.measured import Reading, no_gain
from layerpick.calibration.sweeps.paired import (
    Measured,
    paired_difference,
    share,
    share_lost,
    share_of_score,
)
from layerpick.calibration.sweeps.values import Score
from layerpick.selector.suggestion.result import Suggestion
from layerpick.selector.verification.result import LayerVerdict, MeasuredScore, Verification
from layerpick.training.errors import LayerpickError
from layerpick.training.models.freezing import Boost
from layerpick.training.runs.folder import RunDescription, RunFolder, RunResult
from layerpick.training.sweeps.records import RunSettings

MAY_DIFFER = {"engine", "dtype", "model", "revision", "rates"}
"""Settings of a run that need not be its sweep's."""


def verify_suggestion(suggestion: Suggestion, reading: Reading) -> Verification:
    """The suggestion's layers against a sweep of the same model, task and algorithm.

    One of other data or prompts says so in `differences`.

    Raises LayerpickError when the sweep is about something else, or lacks the pick.
    """
    model, task, pick = suggestion.model, suggestion.task, suggestion.pick
    _same(reading.settings, model.weights_hash, task.name, task.algorithm)
    if pick not in reading.layers:
        raise LayerpickError(
            f"The sweep has not measured layer {pick}, the pick: run `layerpick sweep "
            f"--layers {pick}` in its folder."
        )
    found = _verification(reading, suggestion, pick)
    asked = {
        "data_hash": task.data_hash,
        "task_settings_hash": task.settings_hash,  # older suggestions do not say
        "prompt_form": task.prompt_form,
        "temperature": suggestion.rollouts.temperature,
        "max_new_tokens": suggestion.rollouts.max_new_tokens,
    }
    known = {name: value for name, value in asked.items() if value not in (None, "")}
    own = reading.settings.model_copy(update=known)
    return found.model_copy(update={"differences": _differences(own, reading.settings)})


def verify_run(run: RunFolder, suggestion: Suggestion | None, reading: Reading) -> Verification:
    """A run's own score in terms of a sweep of the same model, task and algorithm.

    Raises LayerpickError when the sweep is about something else or the run is not finished.
    """
    description, result = finished(run)
    if not _alone(description):  # a sweep has no such policy
        return _against(run, suggestion, reading.full.score, reading.settings, "sweep")
    wanted = description.settings
    _same(reading.settings, wanted.weights_hash, wanted.task, wanted.algorithm)
    return _verification(reading, suggestion, _one_layer(description), _OwnRun(description, result))


def verify_pair(
    run: RunFolder, suggestion: Suggestion | None, full: RunFolder | Score | None
) -> Verification:
    """A run with a full-parameter run or its score, or with nothing but its own base score.

    Raises LayerpickError when a run is not finished, or the full-parameter run is about something
    else.
    """
    settings = finished(full)[0].settings if isinstance(full, RunFolder) else None
    return _against(run, suggestion, full, settings, "full-parameter run")


def _against(
    run: RunFolder,
    suggestion: Suggestion | None,
    full: RunFolder | Score | None,
    measured: RunSettings | None,
    by: str,
) -> Verification:
    """A run with a full-parameter score, and the settings `by` which it was measured, if known."""
    description, result = finished(run)
    pick, own = _one_layer(description), _OwnRun(description, result)
    suggestion = suggestion if _alone(description) else None  # predictions are for single layers
    settings = description.settings
    if measured is not None:
        _same(measured, settings.weights_hash, settings.task, settings.algorithm, by)
    whole = _whole(full, settings)
    gained: Score | None = None
    refusal: str | None = "There is no score of full-parameter training: give --full or --sweep."
    if isinstance(whole, Measured):
        refusal = no_gain(paired_difference(whole, own.base))
        gained = share(own.trained, own.base, whole)
    elif whole is not None:
        error = float(np.hypot(own.base.score.error or 0.0, whole.error or 0.0))
        refusal = no_gain(Score(whole.mean - own.base.score.mean, error))
        gained = share_of_score(own.trained, own.base, whole)
    verdict = _verdict(pick, suggestion, own.trained, None if refusal else gained)
    full_score = whole.score if isinstance(whole, Measured) else whole
    return Verification(
        model=settings.model,
        task=settings.task,
        algorithm=settings.algorithm,
        measured_by="one run" if full is None else "one run and the full-parameter score",
        pick=verdict,
        picked=in_words(description.layers, _boost(description)),
        base=_record(own.base.score),
        trained=_record(own.trained.score),
        full=_record(full_score) if full_score else None,
        layers=(verdict,),
        coverage=suggestion.coverage if suggestion else None,
        interval_held=verdict.held,
        intervals_held=None,
        rank=None,
        best=None,
        regret=None,
        rank_correlation=None,
        noise_ceiling=None,
        differences=_differences(settings, measured) if measured else (),
        refusal=refusal,
    )


class _OwnRun:
    """A finished run with its scores by prompt."""

    def __init__(self, description: RunDescription, result: RunResult):
        self.description = description
        self.base = Measured.once(result.base.by_prompt)
        self.trained = Measured.once(result.trained.by_prompt)

    def shares_prompts(self, settings: RunSettings) -> bool:
        """Whether it was scored on the prompts of these settings, so that scores can be paired."""
        return self.description.settings.prompts_hash == settings.prompts_hash


def _verification(
    reading: Reading, suggestion: Suggestion | None, pick: int, run: _OwnRun | None = None
) -> Verification:
    """The pick's score is that of its own run, if there is one."""
    policies = {**reading.layers, pick: run.trained if run else reading.layers[pick]}
    shares = _shares(reading, pick, run)
    scores = {layer: policy.score.mean for layer, policy in policies.items()}
    compared = {layer: share.mean for layer, share in shares.items()} or scores
    best = max(compared, key=compared.__getitem__)
    lost = _share_lost(reading, policies[pick], policies[best], run)
    asked = (each.layer for each in suggestion.layers) if suggestion else ()
    layers = tuple(
        _verdict(layer, suggestion, policies.get(layer), shares.get(layer))
        for layer in sorted({*policies, *asked})
    )
    verdict = next(layer for layer in layers if layer.layer == pick)
    held = [layer.held for layer in layers if layer.held is not None]
    return Verification(
        model=reading.settings.model,
        task=reading.settings.task,
        algorithm=reading.settings.algorithm,
        measured_by=f"a sweep of {len(reading.layers)} layers, {reading.in_words}",
        pick=verdict,
        picked=in_words(run.description.layers if run else (pick,)),
        base=_record(reading.base.score),
        trained=_record(policies[pick].score),
        full=_record(reading.full.score),
        layers=layers,
        coverage=suggestion.coverage if suggestion else None,
        interval_held=verdict.held,
        intervals_held=float(np.mean(held)) if held else None,
        rank=1 + sum(value > compared[pick] for value in compared.values()),
        best=best,
        regret=shares[best].mean - shares[pick].mean if shares else None,
        share_lost=None if reading.nothing_gained else lost.mean,
        share_lost_error=None if reading.nothing_gained else lost.error,
        rank_correlation=_correlation(layers),
        noise_ceiling=reading.noise_ceiling,
        differences=_differences(run.description.settings, reading.settings) if run else (),
        refusal=reading.refusal,
    )


def _shares(reading: Reading, pick: int, run: _OwnRun | None) -> dict[int, Score]:
    """Contributions of all layers; none where the sweep refuses them."""
    if reading.refusal is not None:
        return {}
    shares = {layer: reading.contribution(layer) for layer in reading.layers}
    if run is not None and run.shares_prompts(reading.settings):
        shares[pick] = share(run.trained, reading.base, reading.full)
    elif run is not None:
        shares[pick] = share_of_score(run.trained, run.base, reading.full.score)
    return shares


def _share_lost(reading: Reading, pick: Measured, best: Measured, run: _OwnRun | None) -> Score:
    """Paired by prompt, or without an error where a run of its own had other prompts."""
    if pick is best:
        return Score(0.0, 0.0)
    if run is None or run.shares_prompts(reading.settings):
        return share_lost(pick, reading.base, best)
    gain = best.score.mean - reading.base.score.mean
    return Score((best.score.mean - pick.score.mean) / gain)


def _verdict(
    layer: int, suggestion: Suggestion | None, measured: Measured | None, share: Score | None
) -> LayerVerdict:
    """One layer, with what was predicted and what was measured of it."""
    advised = {each.layer: each for each in suggestion.layers} if suggestion else {}
    predicted, score = advised.get(layer), measured.score if measured else None
    return LayerVerdict(
        layer=layer,
        predicted=predicted.predicted if predicted else None,
        interval=predicted.interval if predicted else None,
        measured=share.mean if share else None,
        error=share.error if share else None,
        score=score.mean if score else None,
        score_error=score.error if score else None,
    )


def _whole(full: RunFolder | Score | None, settings: RunSettings) -> Measured | Score | None:
    """The full-parameter run by prompt if it was scored on the same ones, else its score."""
    if not isinstance(full, RunFolder):
        return full
    description, result = finished(full)
    run = _OwnRun(description, result)
    return run.trained if run.shares_prompts(settings) else run.trained.score


def _correlation(layers: tuple[LayerVerdict, ...]) -> float | None:
    """Spearman, predicted against contributions, or against scores where these are refused."""
    from scipy.stats import spearmanr

    refused = all(each.measured is None for each in layers)
    pairs = [(each.predicted, each.score if refused else each.measured) for each in layers]
    pairs = [pair for pair in pairs if None not in pair]
    if len(pairs) < 3:
        return None
    value = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return value if np.isfinite(value) else None


def finished(run: RunFolder) -> tuple[RunDescription, RunResult]:
    """What a run is and what came of it. Raises LayerpickError when it is not finished."""
    description, result = run.description(), run.result()
    if result is None:
        raise LayerpickError(
            f"The run in {run.path} is not finished: give the command that started it once more."
        )
    return description, result


def _alone(description: RunDescription) -> bool:
    """Whether a run trained one layer and nothing else."""
    return description.layers is not None and len(description.layers) == 1


def _boost(description: RunDescription) -> Boost | None:
    if not description.boosted:
        return None
    return Boost(description.boosted, description.boost_factor)


def _one_layer(description: RunDescription) -> int:
    """The layer that stands for the run: its only or first one."""
    if description.boosted:
        return description.boosted[0]
    if description.layers is None:
        raise LayerpickError(
            "A full-parameter run has no contribution of its own: verify a run of some layers, "
            "and give this one with --full."
        )
    return description.layers[0]


def _same(
    settings: RunSettings, weights_hash: str, task: str, algorithm: str, by: str = "sweep"
) -> None:
    pairs = {
        "weights": (settings.weights_hash, weights_hash),
        "task": (settings.task, task),
        "algorithm": (settings.algorithm, algorithm),
    }
    for what, (found, wanted) in pairs.items():
        if found != wanted:
            raise LayerpickError(
                f"The {by} of {settings.model} is about other {what} ({found:.40}, not "
                f"{wanted:.40}): give the {by} of what was picked."
            )


def _differences(run: RunSettings, measured: RunSettings) -> tuple[str, ...]:
    """Settings that a run does not share with what it is measured by, in words; hashes cut."""
    return tuple(
        f"{name}: {own!s:.12} here, {other!s:.12} there"
        if name.endswith("hash")
        else f"{name}: {own} here, {other} there"
        for name, (own, other) in run.differences(measured).items()
        if name not in MAY_DIFFER
    )


def in_words(layers: tuple[int, ...] | None, boost: Boost | None = None) -> str:
    """What was trained."""
    if boost is not None:
        return f"all parameters, {in_words(boost.layers)} at {boost.factor:g} times the rate"
    if layers is None:
        return "all parameters"
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"


def _record(score: Score) -> MeasuredScore:
    return MeasuredScore(mean=score.mean, error=score.error)
