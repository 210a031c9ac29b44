"""Reinforcement learning of many policies in lock-step: sample, score, update, again.

In every step all policies answer the same prompts, each with its own sampling noise, so a
policy's run does not depend on which others it shares the pass with (but for rounding).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from layerpick.training.algorithms.base import Algorithm
from layerpick.training.engine.learner import Learner, Lesson, Rates, lessons_of
from layerpick.training.engine.policies import Policies
from layerpick.training.episodes.play import SamplingSettings, play
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.memory import return_freed_memory
from layerpick.training.models.loading import LoadedModel
from layerpick.training.settings import RlSettings
from layerpick.training.tasks.base import Prompt, Task

LONG_STAGE = 1.0
"""Seconds of sampling or updating after which handing back what was freed does not show."""


@dataclass
class PolicyRun:
    """What happened to one policy."""

    rewards: list[float] = field(default_factory=list)
    """Mean training reward of each step."""
    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    """Tokens written in training."""
    failure: str | None = None
    """Why the policy was given up, if it was."""


@dataclass
class StageSeconds:
    """Seconds of a pass by what they went to; sampling includes the rewards."""

    sampling: float = 0.0
    update: float = 0.0


@dataclass(frozen=True)
class Step:
    """What one step of some policies was."""

    prompts: Sequence[Prompt]
    groups: Mapping[int, list[list[Trajectory]]]
    """Of each policy alive, its episodes in groups of one prompt."""
    lessons: list[Lesson]
    losses: np.ndarray
    """(policies,), before the update."""
    broken: list[int]
    """Policies whose gradient was not finite, which have not moved."""
    sampling_seconds: float
    update_seconds: float

    def episodes(self, policy: int) -> list[Trajectory]:
        """A living policy's episodes, in order of prompt, then sample."""
        return [episode for group in self.groups[policy] for episode in group]

    @property
    def signal(self) -> bool:
        """Whether the rewards of any group of any policy differed."""
        return any(np.any(lesson.advantages) for lesson in self.lessons)


def train(
    policies: Policies,
    base: LoadedModel,
    task: Task,
    algorithm: Algorithm,
    sampling: SamplingSettings,
    settings: RlSettings,
    learning_rate: Rates,
    *,
    seed: int,
    chunk_tokens: int = 8192,
    on_step: Callable[[Step], None] = lambda _: None,
    spent: StageSeconds | None = None,
) -> list[PolicyRun]:
    """Train all policies; returns one run for each, in order. `on_step` is shown every step.

    A policy whose gradient is not finite is given up and leaves the batch; the others go on.
    """
    runs = [PolicyRun() for _ in range(len(policies))]
    learner = Learner(policies, settings, learning_rate, sampling.temperature, base, chunk_tokens)
    spent = spent or StageSeconds()
    for number in range(settings.steps):
        alive = [policy for policy, run in enumerate(runs) if run.failure is None]
        if not alive:
            break
        step = take_step(
            policies,
            learner,
            task,
            algorithm,
            sampling,
            settings,
            alive=alive,
            seed=seed,
            number=number,
        )
        for policy in alive:
            episodes = step.episodes(policy)
            runs[policy].rewards.append(float(np.mean([episode.reward for episode in episodes])))
            runs[policy].losses.append(float(step.losses[policy]))
            runs[policy].tokens += sum(episode.generated for episode in episodes)
        for policy in step.broken:
            runs[policy].failure = f"the gradient of step {number} is not finite"
        spent.sampling += step.sampling_seconds
        spent.update += step.update_seconds
        on_step(step)
    for policy, run in enumerate(runs):
        if run.failure is None and not policies.finite(policy):
            run.failure = "its weights are not finite"
    return runs


def take_step(
    policies: Policies,
    learner: Learner,
    task: Task,
    algorithm: Algorithm,
    sampling: SamplingSettings,
    settings: RlSettings,
    *,
    alive: list[int],
    seed: int,
    number: int,
) -> Step:
    """Step `number` (from 0) of the policies that are alive: sample, score, update."""
    start = time.perf_counter()
    seed = step_seed(seed, number)
    prompts = task.prompts("train", settings.prompts, seed)
    groups = _sample(policies, alive, task, sampling, prompts, settings.group_size, seed)
    sampled = time.perf_counter()
    _hand_back_after(sampled - start)
    longest = sampling.max_new_tokens * task.max_turns
    lessons: list[Lesson] = []
    for policy in alive:
        lessons += lessons_of(policy, groups[policy], algorithm, longest)
    losses, broken = learner.update(lessons)
    updated = time.perf_counter()
    _hand_back_after(updated - sampled)
    return Step(prompts, groups, lessons, losses, broken, sampled - start, updated - sampled)


def _hand_back_after(seconds: float) -> None:
    """Hand freed memory back after a stage that took so long; a short one would wait for it."""
    if seconds >= LONG_STAGE:
        return_freed_memory()


def step_seed(seed: int, step: int) -> int:
    """The seed of one step's prompts and noise."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def _sample(
    policies: Policies,
    alive: list[int],
    task: Task,
    sampling: SamplingSettings,
    prompts: Sequence[Prompt],
    size: int,
    seed: int,
) -> dict[int, list[list[Trajectory]]]:
    """Each living policy's episodes, in groups of `size` of one prompt."""
    episodes = play(
        policies.model,
        task,
        prompts,
        size,
        sampling,
        seed=seed,
        streams=[policies.streams[policy] for policy in alive],
        make_decoder=lambda owners: policies.decoder([alive[owner] for owner in owners]),
    )
    groups = [episodes[start : start + size] for start in range(0, len(episodes), size)]
    share = len(prompts)
    return {policy: groups[i * share : (i + 1) * share] for i, policy in enumerate(alive)}
