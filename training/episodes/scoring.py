"""Scores: mean verifiable reward on held-out prompts, with its standard error over prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerpick.training.algorithms.base import group_rewards
from layerpick.training.engine.policies import BASE_STREAM, Policies
from layerpick.training.episodes.play import SamplingSettings, play
from layerpick.training.episodes.trajectory import Trajectory, hash_text, share_cut
from layerpick.training.models.loading import LoadedModel
from layerpick.training.processes import ALONE, Processes
from layerpick.training.progress import SILENT, UNSEEN, Reporter, Writing
from layerpick.training.tasks.base import Prompt, Task

PROMPTS_SEED = 0
"""All runs of all seeds are scored on the same held-out prompts."""


@dataclass(frozen=True)
class HeldOut:
    """What policies are scored on."""

    prompts: tuple[Prompt, ...]
    samples: int
    """Episodes for each prompt."""

    @property
    def fingerprint(self) -> str:
        """Hash of the prompts, in order."""
        contents = [prompt.content for prompt in self.prompts]
        return hash_text(json.dumps(contents, default=dict, sort_keys=True))


@dataclass(frozen=True)
class HeldOutScore:
    """How one policy did."""

    by_prompt: tuple[float, ...]
    """Mean reward of each prompt's episodes."""
    tokens: int
    """Tokens written."""
    cut: float
    """Share of episodes with a turn that was cut off by the longest length."""

    @property
    def mean(self) -> float:
        """The score."""
        return float(np.mean(self.by_prompt))

    @property
    def error(self) -> float:
        """Its standard error over prompts; 0 with a single one."""
        count = len(self.by_prompt)
        return float(np.std(self.by_prompt, ddof=1) / count**0.5) if count > 1 else 0.0


def held_out(task: Task, prompts: int, samples: int) -> HeldOut:
    """The first prompts of the held-out split. Raises LayerpickError when there are too few."""
    return HeldOut(task.prompts("heldout", prompts, PROMPTS_SEED), samples)


def score_model(
    model: LoadedModel,
    task: Task,
    sampling: SamplingSettings,
    on: HeldOut,
    seed: int,
    stream: int = BASE_STREAM,
    group: Processes = ALONE,
    reporter: Reporter = SILENT,
    name: str = "scoring the base model",
) -> HeldOutScore:
    """Score a model as it is; `stream` is that of its sampling noise, `name` what is reported.

    The processes of a group score a share of the prompts each, and all have the score.
    """
    own = group.share(len(on.prompts))
    part = HeldOut(on.prompts[own], on.samples)
    progress = scoring_progress(reporter, name, task, sampling, part)
    with group.in_step(model.model):
        episodes = play(
            model, task, part.prompts, part.samples, sampling,
            seed=seed, streams=(stream,), first=own.start, progress=progress,
        )  # fmt: skip
    score = score_of(episodes, part)
    cut = group.gather([each.cut for each in episodes])
    return HeldOutScore(
        tuple(group.gather(score.by_prompt)),
        sum(group.gather([score.tokens])),
        sum(cut) / max(len(cut), 1),
    )


def score_policies(
    policies: Policies,
    task: Task,
    sampling: SamplingSettings,
    on: HeldOut,
    seed: int,
    chosen: Sequence[int] | None = None,
    reporter: Reporter = SILENT,
    name: str = "scoring what was trained",
) -> list[HeldOutScore]:
    """Score every policy, or the chosen ones, in order; `name` is what is reported."""
    count = len(policies) if chosen is None else len(chosen)
    progress = scoring_progress(reporter, name, task, sampling, on, count)
    played = play_policies(policies, task, sampling, on, seed, chosen, progress)
    return [score_of(own, on) for own in played]


def play_policies(
    policies: Policies,
    task: Task,
    sampling: SamplingSettings,
    on: HeldOut,
    seed: int,
    chosen: Sequence[int] | None = None,
    progress: Writing = UNSEEN,
) -> list[list[Trajectory]]:
    """Every policy's episodes on these prompts, or the chosen ones' (ascending), in order."""
    asked = range(len(policies)) if chosen is None else chosen
    episodes = play(
        policies.model,
        task,
        on.prompts,
        on.samples,
        sampling,
        seed=seed,
        streams=[policies.streams[policy] for policy in asked],
        make_decoder=lambda owners: policies.decoder([asked[owner] for owner in owners]),
        progress=progress,
    )
    share = len(episodes) // len(asked)
    return [episodes[start : start + share] for start in range(0, len(episodes), share)]


def scoring_progress(
    reporter: Reporter,
    name: str,
    task: Task,
    sampling: SamplingSettings,
    on: HeldOut,
    policies: int = 1,
) -> Writing:
    """Whoever is to be told what so many policies write on these prompts."""
    longest = sampling.max_new_tokens * task.max_turns
    return reporter.writing(name, policies * len(on.prompts) * on.samples, longest)


def score_of(episodes: Sequence[Trajectory], on: HeldOut) -> HeldOutScore:
    """The score that one policy's episodes make."""
    rewards = group_rewards(episodes).reshape(len(on.prompts), on.samples)
    means = tuple(float(value) for value in rewards.mean(axis=1))
    tokens = sum(episode.generated for episode in episodes)
    return HeldOutScore(means, tokens, share_cut(episodes))
