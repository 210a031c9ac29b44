"""Rollouts: episodes sampled once from the frozen model and shared by every probe.

Saved as one safetensors file: integer arrays for tokens and turns, and what they were made with
as JSON in its header. Reading one runs no code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from layerpick.training.algorithms.base import Algorithm, group_rewards
from layerpick.training.episodes.play import SamplingSettings, play
from layerpick.training.episodes.trajectory import Trajectory, Turn, share_cut
from layerpick.training.errors import LayerpickError
from layerpick.training.files import replacing
from layerpick.training.models.loading import LoadedModel
from layerpick.training.progress import UNSEEN, Writing
from layerpick.training.tasks.base import Task
from layerpick.training.tasks.forms import in_words

FORMAT = "layerpick-rollouts-1"


@dataclass(frozen=True)
class RolloutOrigin:
    """What rollouts were sampled with; equal origins give equal rollouts."""

    weights_hash: str
    task: str
    data: str
    """Fingerprint of the task's data."""
    prompts: int
    group_size: int
    max_new_tokens: int
    max_turns: int
    temperature: float
    seed: int
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
    from safetensors.numpy import save_file

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
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata=header)


def load_rollouts(path: Path, model: LoadedModel | None = None) -> Rollouts:
    """Read rollouts, if given a model, those of its weights.

    Raises LayerpickError for a file that is none, or that other weights wrote.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise LayerpickError(f"The rollouts file {path} does not exist.")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise LayerpickError(f"{path} is not a readable rollouts file: {error}.") from error
    if header.get("format") != FORMAT:
        raise LayerpickError(f"{path} does not hold rollouts of format {FORMAT}.")
    origin = RolloutOrigin(**json.loads(header["origin"]))
    if model is not None and origin.weights_hash != model.identity.weights_hash:
        raise LayerpickError(
            f"{path} was sampled with other weights than {model.identity.name}'s: sample anew "
            f"with this model and --save-rollouts."
        )
    return Rollouts(origin, _episodes(arrays, header))


def _episodes(arrays: dict[str, Any], header: dict[str, str]) -> tuple[Trajectory, ...]:
    spans = arrays["turn_spans"].reshape(-1, 2).tolist()
    turns = [
        Turn(start, end, observation, reward, bool(cut))
        for (start, end), observation, reward, cut in zip(
            spans,
            json.loads(header["observations"]),
            arrays["turn_rewards"].tolist(),
            arrays.get("turn_cuts", np.zeros(len(spans))).tolist(),  # older files do not say
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
            json.loads(header["failures"]),
            strict=True,
        )
    )
