"""Train the named layers of a model with this package's own engine, in a run folder.

The same prompts, noise, losses and files as TRL's run of the same settings; what TRL alone can do
(vLLM, trackers, schedules, gradient checkpointing) it cannot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from layerpick.training.engine.joint import JointPolicy
from layerpick.training.engine.learner import Learner
from layerpick.training.engine.loop import Step, take_step
from layerpick.training.engine.policies import FullPolicy, Policies
from layerpick.training.episodes.transcripts import Transcript, transcribe
from layerpick.training.errors import LayerpickError
from layerpick.training.models.freezing import optimizer_bytes
from layerpick.training.runs.checkpoint import (
    latest_checkpoint,
    load_optimizer,
    load_trained,
    save_checkpoint,
)
from layerpick.training.runs.delta import put_in
from layerpick.training.runs.folder import (
    RunDescription,
    RunFolder,
    StepMetrics,
    TrainingCost,
)
from layerpick.training.runs.rules import (
    not_finite,
    refuse_float16,
    require_signal,
    save_trained,
)
from layerpick.training.sweeps.multiplexed import Bench

ENGINE = "own"


@dataclass(frozen=True)
class OwnSettings:
    """What a run adds to its bench."""

    layers: tuple[int, ...] | None
    """Decoder layers to train; None: every parameter."""
    learning_rate: float
    seed: int = 0
    checkpoint_every: int = 10
    """Steps."""

    def describe(self, bench: Bench) -> RunDescription:
        """What makes the run what it is."""
        return RunDescription(
            settings=bench.run_settings(ENGINE),
            layers=self.layers,
            learning_rate=self.learning_rate,
            seed=self.seed,
            micro_batch=None,
            gradient_checkpointing=False,
            vllm=None,
            trl={},
        )


def train(
    bench: Bench,
    settings: OwnSettings,
    folder: RunFolder,
    *,
    on_step: Callable[[int], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> TrainingCost:
    """Train until the bench's steps are done, from the folder's last checkpoint if any.

    Afterwards the bench's model has the trained weights, and the folder holds the metrics and the
    delta. Raises LayerpickError for what the user can mend; a run that is broken off so keeps what
    it had learned.
    """
    refuse_float16(bench)
    run = _Run(bench, settings, folder)
    done = run.resume()
    on_step(done)
    if 0 < done < bench.settings.steps:
        note(f"Going on from step {done} of {bench.settings.steps}.")
    try:
        for step in range(done, bench.settings.steps):
            run.step(step)
            on_step(1)
    except LayerpickError:
        run.keep_what_was_learned()
        raise
    run.finish()
    return folder.cost()


class _Run:
    """One policy, its learner and its folder."""

    def __init__(self, bench: Bench, settings: OwnSettings, folder: RunFolder):
        self._bench, self._settings, self._folder = bench, settings, folder
        self._policies: Policies = (
            FullPolicy(bench.model)
            if settings.layers is None
            else JointPolicy(bench.model, settings.layers)
        )
        self._learner = Learner(
            self._policies,
            bench.settings,
            settings.learning_rate,
            bench.sampling.temperature,
            bench.model,
            bench.chunk_tokens,
        )
        self._trained = _by_name(bench, self._policies)
        self._done, self._tokens = 0, 0.0

    def resume(self) -> int:
        """Bring everything to the last checkpoint; returns the steps done."""
        checkpoint = latest_checkpoint(self._folder.path)
        self._done = checkpoint.step if checkpoint else 0
        self._folder.begin(self._done)
        if checkpoint:
            load_trained(checkpoint, self._trained)
            load_optimizer(checkpoint, self._learner.optimizer)
            self._tokens = self._folder.metrics()[-1].values["num_tokens"]
        return self._done

    def step(self, number: int) -> None:
        """One step, its line in the metrics, and a checkpoint where one is due."""
        bench, settings = self._bench, self._settings
        start = time.perf_counter()
        taken = take_step(
            self._policies,
            self._learner,
            bench.task,
            bench.algorithm,
            bench.sampling,
            bench.settings,
            alive=[0],
            seed=settings.seed,
            number=number,
        )
        if taken.broken or not np.isfinite(taken.losses[0]):
            what = "gradient" if np.isfinite(taken.losses[0]) else "loss"
            value = "not finite" if what == "gradient" else f"{taken.losses[0]}"
            raise not_finite(what, value, number, self._folder.path, settings.learning_rate)
        self._done = number + 1
        self._folder.append(self._metrics(taken, time.perf_counter() - start))
        longest = bench.sampling.max_new_tokens
        require_signal(
            self._folder, self._done, bench.settings.steps, lambda: self._told(taken), longest
        )
        if self._done % settings.checkpoint_every == 0 or self._done == bench.settings.steps:
            self.keep()

    def _told(self, taken: Step) -> list[Transcript]:
        bench = self._bench
        return transcribe(bench.model, bench.task, taken.prompts, taken.episodes(0))

    def keep(self) -> None:
        """Write a checkpoint of the steps that are done."""
        save_checkpoint(self._folder.path, self._done, self._trained, self._learner.optimizer)

    def keep_what_was_learned(self) -> None:
        """Of a run that is broken off, if it has taken a step."""
        if self._done:
            self.keep()
            self.finish()

    def finish(self) -> None:
        """Write the trained weights and put them into the model."""
        save_trained(
            self._folder,
            self._bench,
            self._settings.layers,
            self._trained,
            steps=self._done,
            learning_rate=self._settings.learning_rate,
            seed=self._settings.seed,
        )
        put_in(self._bench.model, self._trained)

    def _metrics(self, taken: Step, seconds: float) -> StepMetrics:
        """Under TRL's names."""
        episodes = taken.episodes(0)
        rewards = [episode.reward for episode in episodes]
        written = [episode.generated for episode in episodes]
        self._tokens += sum(len(episode.tokens) for episode in episodes)
        values = {
            "loss": float(taken.losses[0]),
            "reward": float(np.mean(rewards)),
            "reward_std": float(np.std(rewards)),
            "learning_rate": self._settings.learning_rate,
            "num_tokens": self._tokens,
            "completions/mean_length": float(np.mean(written)),
            "completions/max_length": float(max(written)),
            "failed_episodes": float(sum(e.failure is not None for e in episodes)),
            "signal": float(taken.signal),
        }
        return StepMetrics(
            step=self._done,
            sampling_seconds=taken.sampling_seconds,
            update_seconds=seconds - taken.sampling_seconds,
            trainable_parameters=sum(p.numel() for p in self._trained.values()),
            optimizer_bytes=optimizer_bytes(self._learner.optimizer),
            values=values,
        )


def _by_name(bench: Bench, policies: Policies) -> Mapping[str, nn.Parameter]:
    """What is trained, by its names in the model."""
    if not isinstance(policies, JointPolicy):
        return policies.copies[0].trained
    return {
        bench.model.layers.prefix(layer) + name: parameter
        for layer, copied in zip(policies.layers, policies.copies, strict=True)
        for name, parameter in copied.trained.items()
    }
