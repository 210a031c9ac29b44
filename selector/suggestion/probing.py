"""Sample once, then run every probe on what was sampled."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerpick.calibration.sweeps.features import FeatureCost, FeatureTable
from layerpick.calibration.sweeps.population import Population, population_of
from layerpick.probes.base import ProbeInput, ProbeResult, ProbeSizes
from layerpick.probes.run import run_probe
from layerpick.probes.table import find_probe
from layerpick.selector.prepare import Prepared
from layerpick.selector.progress import Reporter
from layerpick.selector.settings import (
    USUAL_GROUP_SIZE,
    USUAL_PROMPTS,
    RolloutChoice,
    SamplingChoice,
)
from layerpick.selector.suggestion import summaries
from layerpick.training.algorithms.base import Algorithm
from layerpick.training.episodes.rollouts import (
    Rollouts,
    groups_with_signal,
    load_rollouts,
    rollout_origin,
    sample_rollouts,
    save_rollouts,
)
from layerpick.training.episodes.trajectory import MANY_CUT
from layerpick.training.episodes.transcripts import (
    Transcript,
    share_readable,
    transcribe,
    why_no_signal,
)
from layerpick.training.errors import LayerpickError, NoSignalError
from layerpick.training.models.loading import LoadedModel
from layerpick.training.sweeps.multiplexed import model_label

_SAME_TASK = {
    "task": "another task",
    "data": "other data",
    "prompt_form": "another prompt form",
    "max_turns": "another --max-turns",
    "settings_hash": "another reward, or other settings of the task",
}
"""What of their origin rollouts must share with whoever reuses them, in words where they do not."""


@dataclass(frozen=True)
class Probed:
    """What was sampled, and what the probes found in it."""

    rollouts: Rollouts
    signal: int
    """Groups whose rewards differ."""
    readable: float
    """Share of completions with an answer that could be judged."""
    sampling_seconds: float
    results: Mapping[str, ProbeResult]
    """By probe."""
    one_step_rate: float
    """Learning rate of the probe `one_step`, if it ran."""

    @property
    def features(self) -> dict[str, np.ndarray]:
        """All features by name, each (layers,), float64."""
        return {
            name: values
            for result in self.results.values()
            for name, values in result.features.items()
        }


def probe(
    prepared: Prepared,
    algorithm: Algorithm,
    rollouts: RolloutChoice,
    probes: Sequence[str],
    learning_rate: float,
    *,
    sizes: ProbeSizes | None = None,
    seed: int,
    reporter: Reporter,
) -> Probed:
    """Sample rollouts, or read those chosen, and run the probes named.

    `learning_rate` is that of the probes that train. Raises NoSignalError when no group's rewards
    differ.
    """
    probe_input, sampled = sample(
        prepared, algorithm, rollouts, learning_rate, sizes=sizes, seed=seed, reporter=reporter
    )
    return replace(sampled, results=run_probes(probe_input, probes, reporter))


def sample(
    prepared: Prepared,
    algorithm: Algorithm,
    rollouts: RolloutChoice,
    learning_rate: float,
    *,
    sizes: ProbeSizes | None = None,
    seed: int,
    reporter: Reporter,
) -> tuple[ProbeInput, Probed]:
    """What every probe needs, and the rollouts without any probe's results yet."""
    other = load_rollouts(rollouts.also, prepared.model) if rollouts.also else None
    start = time.perf_counter()
    samples = get_rollouts(prepared, rollouts, seed, reporter)
    seconds = time.perf_counter() - start
    told = transcripts(prepared, samples)
    signal = _require_signal(samples, algorithm, told)
    _note_rollouts(samples, signal, told, reporter)
    probe_input = ProbeInput(
        prepared.model,
        samples,
        algorithm,
        seed,
        learning_rate,
        sizes or ProbeSizes(),
        prepared.task,
        prepared.sampling,
        other,
    )
    stepped = learning_rate * probe_input.sizes.one_step_stride
    return probe_input, Probed(samples, signal, share_readable(told), seconds, {}, stepped)


def run_probes(
    probe_input: ProbeInput, probes: Sequence[str], reporter: Reporter
) -> dict[str, ProbeResult]:
    """Results by probe; one that fails says why."""
    results = {}
    for name in probes:
        measured = find_probe(name)()
        done = reporter.stage(f"probe: {measured.name}", measured.ticks(probe_input))
        result = results[measured.name] = run_probe(measured, probe_input, done)
        if result.failure:
            reporter.note(f"Probe {measured.name}: {result.failure}")
    return results


def feature_table(prepared: Prepared, algorithm: Algorithm, probed: Probed) -> FeatureTable:
    """The features as the record that a predictor learns from."""
    model, results = prepared.model, probed.results
    return FeatureTable(
        model=model_label(model.identity),
        family=model.model.config.get_text_config(decoder=True).model_type,
        weights_hash=model.identity.weights_hash,
        task=prepared.task.name,
        algorithm=algorithm.name,
        layers=len(model.layers),
        base_reward=probed.rollouts.mean_reward,
        one_step_rate=probed.one_step_rate if "one_step" in results else None,
        rollouts=FeatureCost(
            seconds=probed.sampling_seconds,
            sampled_tokens=probed.rollouts.generated_tokens,
            read_tokens=0,
        ),
        costs={
            name: FeatureCost(
                seconds=result.cost.seconds,
                sampled_tokens=result.cost.sampled_tokens,
                read_tokens=result.cost.tokens,
            )
            for name, result in results.items()
        },
        features={
            name: {
                feature: tuple(float(f"{value:.6g}") for value in values)
                for feature, values in result.features.items()
            }
            for name, result in results.items()
        },
        failures={name: result.failure for name, result in results.items() if result.failure},
        versions=summaries.versions(),
    )


def kind_of(model: LoadedModel) -> Population:
    """Which population it belongs to, by the name that its records would have."""
    return population_of(model_label(model.identity))


def get_rollouts(
    prepared: Prepared, choice: RolloutChoice, seed: int, reporter: Reporter
) -> Rollouts:
    """Sample, or read the file chosen. Raises LayerpickError for a file of something else."""
    model, task, sampling = prepared.model, prepared.task, prepared.sampling
    if choice.reuse is not None:
        rollouts = load_rollouts(choice.reuse, model)
        expected = rollout_origin(
            model, task, rollouts.origin.prompts, rollouts.origin.group_size, sampling, seed
        )
        # Other sampling settings are the file's business; another task makes it useless.
        for name, said in _SAME_TASK.items():
            if getattr(rollouts.origin, name) not in (None, getattr(expected, name)):
                raise LayerpickError(
                    f"{choice.reuse} was sampled with {said}: sample anew, or give the model, "
                    f"task, data set and reward that it was made with."
                )
        return rollouts
    prompts, group_size = choice.prompts or USUAL_PROMPTS, choice.group_size or USUAL_GROUP_SIZE
    progress = reporter.writing(
        "sampling rollouts",
        prompts * group_size,
        sampling.max_new_tokens * task.max_turns,
    )
    rollouts = sample_rollouts(
        model,
        task,
        prompts=prompts,
        group_size=group_size,
        sampling=sampling,
        seed=seed,
        progress=progress,
    )
    if choice.save is not None:
        save_rollouts(rollouts, choice.save)
    return rollouts


def refuse_contradictions(
    rollouts: Rollouts, choice: RolloutChoice, sampling: SamplingChoice
) -> None:
    """Raise LayerpickError where an option asks for something else than the file reused holds."""
    asked = {
        "prompts": choice.prompts,
        "group_size": choice.group_size,
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    for name, value in asked.items():
        held = getattr(rollouts.origin, name)
        if choice.reuse is not None and value not in (None, held):
            raise LayerpickError(
                f"{choice.reuse} was sampled with --{name.replace('_', '-')} {held}, not {value}: "
                f"leave the option out, or sample anew."
            )


def transcripts(prepared: Prepared, rollouts: Rollouts) -> list[Transcript]:
    """Every episode as text."""
    origin = rollouts.origin
    prompts = prepared.task.prompts("train", origin.prompts, origin.seed)
    return transcribe(prepared.model, prepared.task, prompts, rollouts.trajectories)


def _require_signal(rollouts: Rollouts, algorithm: Algorithm, told: Sequence[Transcript]) -> int:
    """Number of groups with any advantage. Raises NoSignalError, with the cause, for none."""
    signal = groups_with_signal(rollouts, algorithm)
    if signal == 0:
        raise NoSignalError(
            f"None of the {len(rollouts.groups)} groups has reward variance (mean reward "
            f"{rollouts.mean_reward:.2f}), so there is nothing for RL to learn from: "
            f"{why_no_signal(told, rollouts.origin.max_new_tokens)}."
        )
    return signal


def _note_rollouts(
    rollouts: Rollouts, signal: int, told: Sequence[Transcript], reporter: Reporter
) -> None:
    groups = len(rollouts.groups)
    if rollouts.cut > MANY_CUT:
        reporter.note(
            f"Warning: {rollouts.cut:.0%} of the completions were cut off at "
            f"{rollouts.origin.max_new_tokens:,} tokens: give a larger --max-new-tokens."
        )
    readable = share_readable(told)
    if readable < 1 - MANY_CUT:
        reporter.note(
            f"Warning: {1 - readable:.0%} of the completions hold no answer that can be read; "
            f"`layerpick rollouts` shows some."
        )
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
