"""What an algorithm is: advantages from rewards, and the weight of a token in the loss.

Everything here is a pure function of trajectories. The loss of a batch of B trajectories is
−(1/B) Σ_i w_i Σ_t A_it · ratio_it (clipped), with w_i = `token_weight`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from layerpick.training.episodes.trajectory import Trajectory

STD_EPSILON = 1e-4
"""Added to a group's standard deviation, as TRL does."""


class Algorithm(ABC):
    """A policy-gradient algorithm whose baseline is the group."""

    name: ClassVar[str]
    about: ClassVar[str]
    trl: ClassVar[Mapping[str, Any]] = {"loss_type": "grpo", "scale_rewards": "group"}
    """Fields of TRL's GRPOConfig that say what the loss is: by default, that each trajectory counts
    the same, whatever its length."""
    advantages_by_trl: ClassVar[bool] = False
    """Whether TRL computes these very advantages and weights itself, given `trl`. Otherwise the
    trainer hands it the algorithm's own, and it must sample with this package's sampler."""

    @abstractmethod
    def advantages(self, group: Sequence[Trajectory]) -> list[np.ndarray]:
        """Per trajectory of one group, shape (turns,), float64: the advantage of each turn."""

    @abstractmethod
    def token_weight(self, generated: int, max_tokens: int) -> float:
        """Weight of each token of a trajectory with `generated` tokens written by the model.

        `max_tokens` is the most that a trajectory could have had.
        """


def group_rewards(group: Sequence[Trajectory]) -> np.ndarray:
    """Shape (trajectories,), float64: episode rewards."""
    return np.array([trajectory.reward for trajectory in group], dtype=np.float64)


def normalised(values: np.ndarray) -> np.ndarray:
    """(x − mean) / (sample standard deviation + 1e-4); one value alone gives 0."""
    if len(values) < 2:
        return np.zeros_like(values)
    return (values - values.mean()) / (values.std(ddof=1) + STD_EPSILON)


def per_turn(values: np.ndarray, group: Sequence[Trajectory]) -> list[np.ndarray]:
    """Give every turn of a trajectory the trajectory's value."""
    return [
        np.full(len(trajectory.turns), value)
        for trajectory, value in zip(group, values, strict=True)
    ]
