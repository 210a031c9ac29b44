"""One pass of a sweep: train and score the policies that share it, and say what came of each."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from layerpick.training.algorithms.base import Algorithm
from layerpick.training.engine.loop import (
    PolicyRun,
    Step,
    step_seed,
    train,
)
from layerpick.training.engine.patience import Patience
from layerpick.training.engine.policies import FullPolicy, Policies
from layerpick.training.engine.stacked import SingleLayerPolicies
from layerpick.training.episodes.play import SamplingSettings
from layerpick.training.episodes.scoring import HeldOut, HeldOutScore, score_model, score_policies
from layerpick.training.memory import return_freed_memory
from layerpick.training.models.defaults import REFERENCE
from layerpick.training.models.loading import LoadedModel, ModelIdentity
from layerpick.training.progress import SILENT, Reporter
from layerpick.training.settings import RlSettings
from layerpick.training.sweeps.records import Rates, RunKey, RunRecord, RunSettings
from layerpick.training.tasks.base import Task, TaskSettings
from layerpick.training.tasks.forms import in_words

SCORING_STEP = 2**31
"""Stands for the step number in the seed of the scoring's noise."""
PACKAGES = ("layerpick", "torch", "transformers", "trl", "numpy")


@dataclass(frozen=True)
class Bench:
    """What all runs of a sweep share."""

    model: LoadedModel
    task: Task
    algorithm: Algorithm
    sampling: SamplingSettings
    settings: RlSettings
    heldout: HeldOut
    learning_rates: tuple[float, ...]
    """The grid that learning rates are chosen from."""
    rates: Rates = "shared"
    told: TaskSettings | None = None
    """The task's settings as a person gave them, where its files have since moved."""
    chunk_tokens: int = 8192
    """Tokens of one backward pass; bounds the memory, changes nothing else."""

    def run_settings(self, engine: str) -> RunSettings:
        """What a stored run must have been made with to be reused."""
        model, task, settings = self.model, self.task, self.settings
        return RunSettings(
            model=model_label(model.identity),
            revision=model.identity.revision,
            weights_hash=model.identity.weights_hash,
            layers=len(model.layers),
            dtype=str(model.dtype).removeprefix("torch."),
            task=task.name,
            source=source_label(task),
            data_hash=task.fingerprint(),
            task_settings_hash=(self.told or task.settings).identity,
            algorithm=self.algorithm.name,
            engine=engine,
            steps=settings.steps,
            prompts=settings.prompts,
            group_size=settings.group_size,
            max_new_tokens=self.sampling.max_new_tokens,
            max_turns=task.max_turns,
            temperature=self.sampling.temperature,
            epsilon=settings.epsilon,
            beta=settings.beta,
            max_grad_norm=settings.max_grad_norm,
            heldout_prompts=len(self.heldout.prompts),
            heldout_samples=self.heldout.samples,
            prompts_hash=self.heldout.fingerprint,
            prompt_form=in_words(task.settings),
            rates=self.rates,
        )


def model_label(identity: ModelIdentity) -> str:
    """A model's name without the place where it lies on this machine."""
    path = Path(identity.name)
    if REFERENCE in path.parents:
        return f"reference-{path.name}"
    return path.name if path.exists() else identity.name


def source_label(task: Task) -> str:
    """A data set's name without the place where it lies on this machine."""
    path = Path(task.source)
    return path.name if path.is_file() else task.source


def run_pass(bench: Bench, keys: Sequence[RunKey], reporter: Reporter = SILENT) -> list[RunRecord]:
    """Measure runs with the multiplexed engine: of one seed and one kind.

    A base score or a full run is a pass of its own; runs of layers may share layers and differ in
    their learning rates. Records come by layer, then by rate. Raises torch.OutOfMemoryError when
    the pass does not fit, NoSignalError when no policy's rewards differ within `PATIENCE` steps.
    """
    keys = sorted(keys, key=lambda key: (key.layer or 0, key.learning_rate or 0.0))
    first = keys[0]
    # The pass before has left cycles that hold its policies and their moments.
    gc.collect()
    return_freed_memory()
    start = time.perf_counter()
    scored = (bench.task, bench.sampling, bench.heldout, step_seed(first.seed, SCORING_STEP))
    name = pass_name(keys)
    if first.kind == "base":
        score = score_model(bench.model, *scored, reporter=reporter, name=f"scoring {name}")
        runs, scores = [PolicyRun()], [score]
    else:
        policies: Policies = (
            FullPolicy(bench.model)
            if first.kind == "full"
            else SingleLayerPolicies(bench.model, [int(key.layer or 0) for key in keys])
        )
        runs = _train(bench, policies, keys, reporter.stage(name, bench.settings.steps))
        scores = score_policies(policies, *scored, reporter=reporter, name=f"scoring {name}")
    seconds = (time.perf_counter() - start) / len(keys)
    return [
        record(bench, "multiplexed", key, run, score, seconds, len(keys))
        for key, run, score in zip(keys, runs, scores, strict=True)
    ]


def _train(
    bench: Bench, policies: Policies, keys: Sequence[RunKey], done: Callable[[int], None]
) -> list[PolicyRun]:
    patience = Patience(bench.model, bench.task, bench.sampling, bench.settings.steps)

    def after_step(step: Step) -> None:
        done(1)
        patience.look(step)

    return train(
        policies,
        bench.model,
        bench.task,
        bench.algorithm,
        bench.sampling,
        bench.settings,
        tuple(key.learning_rate or 0.0 for key in keys),
        seed=keys[0].seed,
        chunk_tokens=bench.chunk_tokens,
        on_step=after_step,
    )


def pass_name(keys: Sequence[RunKey]) -> str:
    """A pass by its runs."""
    return keys[0].name if len(keys) == 1 else f"{keys[0].name} to {keys[-1].name}"


def record(
    bench: Bench,
    engine: str,
    key: RunKey,
    run: PolicyRun,
    score: HeldOutScore,
    seconds: float,
    policies_in_pass: int,
) -> RunRecord:
    """The record of one run; a failed one has no score."""
    failed = run.failure is not None
    return RunRecord(
        run=key,
        settings=bench.run_settings(engine),
        learning_rate_grid=bench.learning_rates,
        status="failed" if failed else "done",
        reason=run.failure,
        curve=tuple(run.rewards),
        score=None if failed else score.mean,
        error=None if failed else score.error,
        prompt_scores=() if failed else score.by_prompt,
        cut=None if failed else score.cut,
        tokens=run.tokens + score.tokens,
        seconds=seconds,
        policies_in_pass=policies_in_pass,
        device=device_name(bench.model.device),
        versions={package: version(package) for package in PACKAGES},
    )


def device_name(device: torch.device) -> str:
    """What computed: the GPU's name, or `cpu` with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"
