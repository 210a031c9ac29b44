"""From a model and a task to a suggestion: sample once, probe, predict.

This is the function behind `layerpick suggest` and `from layerpick.selector import suggest`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from layerpick.calibration.position import load_position_predictor
from layerpick.calibration.predictor import LayerFeatures
from layerpick.probes.base import ProbeInput, ProbeResult
from layerpick.probes.measuring import run_probe
from layerpick.probes.table import DEFAULT_PROBES, PROBES
from layerpick.selector import summaries
from layerpick.selector.measurements import find_measured
from layerpick.selector.preparing import ModelChoice, Prepared, RolloutChoice, prepare
from layerpick.selector.progress import Reporter, Silent
from layerpick.selector.suggestion import Cost, Suggestion
from layerpick.selector.training_run import default_rate
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.errors import LayerpickError
from layerpick.training.rollouts import (
    Rollouts,
    load_rollouts,
    require_signal,
    rollout_origin,
    sample_rollouts,
    save_rollouts,
)
from layerpick.training.tasks.base import TaskSettings


def suggest(
    model: ModelChoice | str | None = None,
    task: str = "math",
    *,
    settings: TaskSettings | None = None,
    algorithm: str | None = None,
    rollouts: RolloutChoice | None = None,
    probes: Sequence[str] = DEFAULT_PROBES,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Suggestion:
    """Predict which decoder layer of `model` gains most from RL on `task`, trained alone.

    `model` is a Hub id, a folder, a .gguf file, or None for the built-in model of the task.
    Raises LayerpickError for whatever the user can mend, NoSignalError when the model's rewards
    do not differ within any group.
    """
    start = time.perf_counter()
    choice = model if isinstance(model, ModelChoice) else ModelChoice(model)
    rollouts = rollouts or RolloutChoice()
    reporter = reporter or Silent()
    prepared = prepare(choice, task, settings or TaskSettings(), rollouts)
    chosen = make_algorithm(algorithm or prepared.task.default_algorithm)
    loaded = time.perf_counter()
    samples = _rollouts(prepared, rollouts, seed, reporter)
    sampled = time.perf_counter()
    signal = require_signal(samples, chosen)
    _note_rollouts(samples, signal, reporter)
    shared = ProbeInput(prepared.model, samples, chosen, seed, default_rate(prepared))
    results = _probe(shared, probes, reporter)
    features = {
        name: values for result in results.values() for name, values in result.features.items()
    }
    depth = np.array([prepared.model.layers.depth(k) for k in range(len(prepared.model.layers))])
    prediction = load_position_predictor().predict(LayerFeatures(depth, features), seed)
    identity = prepared.model.identity
    sweep = find_measured(identity.name, identity.weights_hash, task, chosen.name)
    pick = int(prediction.contribution.argmax())
    return Suggestion(
        pick=pick,
        basis=prediction.basis,
        measured_by=sweep.source if sweep else None,
        coverage=prediction.coverage,
        layers=summaries.layers(depth, prediction, features, sweep),
        model=summaries.model(prepared.model),
        task=summaries.task(prepared.task, chosen),
        rollouts=summaries.rollouts(samples, signal),
        cost=Cost(
            seconds=time.perf_counter() - start,
            load_seconds=loaded - start,
            sampling_seconds=sampled - loaded,
            sampled_tokens=samples.generated_tokens,
            probe_tokens=sum(result.cost.tokens for result in results.values()),
            peak_bytes=summaries.peak_bytes(prepared.model, results),
            probes=summaries.probes(results),
        ),
        savings=summaries.savings(prepared.model, pick),
        seed=seed,
        versions=summaries.versions(),
    )


def _rollouts(prepared: Prepared, choice: RolloutChoice, seed: int, reporter: Reporter) -> Rollouts:
    model, task, sampling = prepared.model, prepared.task, prepared.sampling
    if choice.reuse is not None:
        rollouts = load_rollouts(choice.reuse)
        expected = rollout_origin(
            model, task, rollouts.origin.prompts, rollouts.origin.group_size, sampling, seed
        )
        # Other sampling settings are the file's business; other weights or data make it useless.
        for name in ("weights_hash", "task", "data"):
            if getattr(rollouts.origin, name) != getattr(expected, name):
                raise LayerpickError(
                    f"{choice.reuse} was sampled with another {name.replace('_', ' ')}: sample "
                    f"anew, or give the model, task and data set that it was made with."
                )
        return rollouts
    done = reporter.stage("sampling rollouts", choice.prompts * choice.group_size)
    rollouts = sample_rollouts(
        model,
        task,
        prompts=choice.prompts,
        group_size=choice.group_size,
        sampling=sampling,
        seed=seed,
        on_done=done,
    )
    if choice.save is not None:
        save_rollouts(rollouts, choice.save)
    return rollouts


def _note_rollouts(rollouts: Rollouts, signal: int, reporter: Reporter) -> None:
    groups = len(rollouts.groups)
    if signal < groups:
        reporter.note(
            f"{groups - signal} of {groups} groups carry no signal: all their completions earn "
            f"the same."
        )
    if rollouts.failures:
        reporter.note(
            f"{len(rollouts.failures)} episodes were broken off, the first because "
            f"{rollouts.failures[0]}."
        )


def _probe(
    shared: ProbeInput, names: Sequence[str], reporter: Reporter
) -> Mapping[str, ProbeResult]:
    results = {}
    for name in names:
        probe = PROBES[name]()
        done = reporter.stage(f"probe: {name}", probe.steps(shared))
        results[name] = run_probe(probe, shared, done)
        if results[name].failure:
            reporter.note(f"Probe {name}: {results[name].failure}")
    return results
