"""Rollouts: episodes sampled once from the frozen model and shared by every probe.

Saved as one safetensors file: integer arrays for tokens and turns, and what they were made with
as JSON in its header. Reading one runs no code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, TypeAdapter

from layerpick.training.algorithms.base import Algorithm, group_rewards
from layerpick.training.episodes.play import SamplingSettings, play
from layerpick.training.episodes.trajectory import Trajectory, Turn, share_cut
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import LoadedModel
from layerpick.training.progress import UNSEEN, Writing
from layerpick.training.reading import reading
from layerpick.training.tasks.base import Task
from layerpick.training.tasks.forms import in_words
from layerpick.training.tensor_files import read_tensors, save_tensors
from layerpick.training.values import LARGEST, Positive

FORMAT = "layerpick-rollouts-1"
_Size = Annotated[int, Field(ge=1, lt=2**31)]


@dataclass(frozen=True)
class RolloutOrigin:
    """What rollouts were sampled with; equal origins give equal rollouts."""

    weights_hash: str
    task: str
    data: str
    """Fingerprint of the task's data."""
    prompts: _Size
    group_size: _Size
    max_new_tokens: _Size
    max_turns: _Size
    temperature: Positive
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    prompt_form: str | None = None
    """The form of the prompts, in words; None in files of older versions."""
    settings_hash: str | None = None
    """Of the task's settings, the form of the prompts among them; None likewise."""


@dataclass(frozen=True)
class Rollouts:
    """Trajectories in groups of one prompt each, in order."""

    origin: RolloutOrigin
    trajectories: tuple[Trajectory, ...]

    @cached_property
    def groups(self) -> tuple[tuple[Trajectory, ...], ...]:
        """The trajectories of each prompt."""
        size = self.origin.group_size
        return tuple(
            self.trajectories[start : start + size]
            for start in range(0, len(self.trajectories), size)
        )

    @property
    def mean_reward(self) -> float:
        """Mean episode reward."""
        return float(group_rewards(self.trajectories).mean())

    @property
    def reward_error(self) -> float:
        """Standard error of the mean reward over prompts."""
        means = [group_rewards(group).mean() for group in self.groups]
        return float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0

    @property
    def generated_tokens(self) -> int:
        """Tokens written by the model."""
        return sum(trajectory.generated for trajectory in self.trajectories)

    @property
    def cut(self) -> float:
        """Share of episodes with a turn that was cut off by the longest length."""
        return share_cut(self.trajectories)

    @property
    def max_trajectory_tokens(self) -> int:
        """The most tokens that a trajectory could have had the model write."""
        return self.origin.max_new_tokens * self.origin.max_turns

    @property
    def failures(self) -> tuple[str, ...]:
        """Why environments broke, if any did."""
        return tuple(t.failure for t in self.trajectories if t.failure)

    def advantages(self, algorithm: Algorithm) -> list[list[np.ndarray]]:
        """By group, by trajectory: shape (turns,), float64."""
        return [algorithm.advantages(group) for group in self.groups]


def sample_rollouts(
    model: LoadedModel,
    task: Task,
    *,
    prompts: int,
    group_size: int,
    sampling: SamplingSettings,
    seed: int,
    progress: Writing = UNSEEN,
) -> Rollouts:
    """Sample `group_size` episodes for each of `prompts` training prompts.

    Raises LayerpickError when the data does not fit.
    """
    rows = task.prompts("train", prompts, seed)
    trajectories = play(model, task, rows, group_size, sampling, seed=seed, progress=progress)
    origin = rollout_origin(model, task, prompts, group_size, sampling, seed)
    return Rollouts(origin, tuple(trajectories))


def rollout_origin(
    model: LoadedModel,
    task: Task,
    prompts: int,
    group_size: int,
    sampling: SamplingSettings,
    seed: int,
) -> RolloutOrigin:
    """What rollouts made with these settings would be stamped with."""
    return RolloutOrigin(
        weights_hash=model.identity.weights_hash,
        task=task.name,
        data=task.fingerprint(),
        prompts=prompts,
        group_size=group_size,
        max_new_tokens=sampling.max_new_tokens,
        max_turns=task.max_turns,
        temperature=sampling.temperature,
        seed=seed,
        prompt_form=in_words(task.settings),
        settings_hash=task.settings.identity,
    )


def groups_with_signal(rollouts: Rollouts, algorithm: Algorithm) -> int:
    """Number of groups with any advantage."""
    return sum(
        any(np.any(turns != 0) for turns in group) for group in rollouts.advantages(algorithm)
    )


def save_rollouts(rollouts: Rollouts, path: Path) -> None:
    """Write rollouts to a safetensors file, whole or not at all."""
    episodes = rollouts.trajectories
    turns = [turn for episode in episodes for turn in episode.turns]
    arrays = {
        "group": np.array([episode.group for episode in episodes], dtype=np.int64),
        "lengths": np.array([len(episode.tokens) for episode in episodes], dtype=np.int64),
        "tokens": np.concatenate([np.array(e.tokens, dtype=np.int64) for e in episodes]),
        "rewards": group_rewards(episodes),
        "turns_per_episode": np.array([len(e.turns) for e in episodes], dtype=np.int64),
        "turn_spans": np.array([(turn.start, turn.end) for turn in turns], dtype=np.int64),
        "turn_rewards": np.array([turn.reward for turn in turns], dtype=np.float64),
        "turn_cuts": np.array([turn.cut for turn in turns], dtype=np.int64),
    }
    header = {
        "format": FORMAT,
        "origin": json.dumps(asdict(rollouts.origin)),
        "observations": json.dumps([turn.observation for turn in turns]),
        "failures": json.dumps([episode.failure for episode in episodes]),
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    save_tensors(path, tensors, header)


def load_rollouts(path: Path, model: LoadedModel | None = None) -> Rollouts:
    """Read rollouts, if given a model, those of its weights.

    Raises LayerpickError for a file that is none, that is damaged or contradicts itself, or that
    other weights wrote.
    """
    if not path.is_file():
        raise LayerpickError(f"The rollouts file {path} does not exist.")
    what, remedy = "rollouts", "sample anew, with --save-rollouts"
    tensors, header = read_tensors(path, FORMAT, what, remedy, must_be_signed=False)
    with reading(path, what, remedy):
        origin = TypeAdapter(RolloutOrigin).validate_json(header["origin"], strict=True)
        episodes = _episodes({name: tensor.numpy() for name, tensor in tensors.items()}, header)
        _check(episodes, origin, None if model is None else len(model.tokenizer))
    if model is not None and origin.weights_hash != model.identity.weights_hash:
        raise LayerpickError(
            f"{path} was sampled with other weights than {model.identity.name}'s: sample anew "
            f"with this model and --save-rollouts."
        )
    return Rollouts(origin, episodes)


def _check(episodes: Sequence[Trajectory], origin: RolloutOrigin, words: int | None) -> None:
    """Raise ValueError unless episodes are what the origin says: groups, turns, numbers, tokens."""
    if len(episodes) != origin.prompts * origin.group_size:
        raise ValueError(f"it holds {len(episodes)} episodes")
    for index, episode in enumerate(episodes):
        if episode.group != index // origin.group_size:
            raise ValueError(f"episode {index} is in group {episode.group}")
        if len(episode.turns) > origin.max_turns:
            raise ValueError(f"episode {index} has more turns than {origin.max_turns}")
        lengths = [turn.end - turn.start for turn in episode.turns]
        if episode.prompt_length < 1 or max(lengths, default=0) > origin.max_new_tokens:
            raise ValueError(f"episode {index} has no prompt, or a turn that is too long")
        numbers = [episode.reward, *(turn.reward for turn in episode.turns)]
        if not all(math.isfinite(number) and abs(number) <= LARGEST for number in numbers):
            raise ValueError(f"episode {index} has a reward that is no number")
        least, most = min(episode.tokens, default=0), max(episode.tokens, default=0)
        if least < 0 or (words is not None and most >= words):
            raise ValueError(f"episode {index} holds a token that the model does not have")


def _episodes(
    arrays: Mapping[str, np.ndarray], header: Mapping[str, str]
) -> tuple[Trajectory, ...]:
    """Trajectories from arrays. Raises whatever comes of arrays that are not `save_rollouts`'s."""
    observations, failures = json.loads(header["observations"]), json.loads(header["failures"])
    for texts, kind in ((observations, str), (failures, str | None)):
        if not isinstance(texts, list) or not all(isinstance(text, kind) for text in texts):
            raise ValueError("an observation or failure is no text")
    whole = ("group", "lengths", "tokens", "turns_per_episode", "turn_spans")
    if any(arrays[name].dtype != np.int64 or (arrays[name] < 0).any() for name in whole):
        raise ValueError("a count is no count")
    for counts, counted in (("lengths", "tokens"), ("turns_per_episode", "turn_spans")):
        if int(arrays[counts].sum()) != len(arrays[counted]):
            raise ValueError(f"{counts} do not add up")
    cuts = arrays.get("turn_cuts", np.zeros(len(observations)))  # older files do not say
    if not np.isin(cuts, (0, 1)).all():
        raise ValueError("a turn is neither cut nor whole")
    turns = [
        Turn(start, end, observation, reward, bool(cut))
        for (start, end), observation, reward, cut in zip(
            arrays["turn_spans"].reshape(-1, 2).tolist(),
            observations,
            arrays["turn_rewards"].tolist(),
            cuts.tolist(),
            strict=True,
        )
    ]
    token_ends = np.cumsum(arrays["lengths"])
    turn_ends = np.cumsum(arrays["turns_per_episode"])
    tokens = np.split(arrays["tokens"], token_ends[:-1])
    return tuple(
        Trajectory(group, tuple(ids.tolist()), tuple(turns[end - count : end]), reward, failure)
        for group, ids, end, count, reward, failure in zip(
            arrays["group"].tolist(),
            tokens,
            turn_ends.tolist(),
            arrays["turns_per_episode"].tolist(),
            arrays["rewards"].tolist(),
            failures,
            strict=True,
        )
    )
