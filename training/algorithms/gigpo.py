"""GiGPO: group-in-group policy optimisation (arXiv 2505.10978, section 4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerpick.training.algorithms.base import Algorithm, group_rewards, normalised
from layerpick.training.episodes.trajectory import Trajectory


@dataclass(frozen=True)
class GiGpo(Algorithm):
    """Episode advantage plus a step advantage within groups of equal observations."""

    name = "gigpo"
    about = "episode advantage + w × advantage among the group's steps from the same state"

    gamma: float = 0.95
    """Discount of later rewards in a step's return."""
    step_weight: float = 1.0
    """w: weight of the step advantage."""

    def advantages(self, group: Sequence[Trajectory]) -> list[np.ndarray]:
        """A_it = A^episode_i + w · A^step_it."""
        episode = normalised(group_rewards(group))
        step = self.step_advantages(group)
        return [episode[index] + self.step_weight * step[index] for index in range(len(group))]

    def step_advantages(self, group: Sequence[Trajectory]) -> list[np.ndarray]:
        """Discounted returns normalised among steps with the same observation; alone: 0."""
        clusters: dict[str, list[tuple[int, int]]] = defaultdict(list)
        returns = [discounted_returns(trajectory, self.gamma) for trajectory in group]
        for index, trajectory in enumerate(group):
            for step, turn in enumerate(trajectory.turns):
                clusters[turn.observation].append((index, step))
        advantages = [np.zeros(len(trajectory.turns)) for trajectory in group]
        for members in clusters.values():
            values = normalised(np.array([returns[index][step] for index, step in members]))
            for (index, step), value in zip(members, values, strict=True):
                advantages[index][step] = value
        return advantages

    def token_weight(self, generated: int, max_tokens: int) -> float:  # noqa: ARG002
        """1 / length, so that every trajectory counts the same."""
        return 1.0 / max(generated, 1)


def discounted_returns(trajectory: Trajectory, gamma: float) -> np.ndarray:
    """Shape (turns,), float64: R_t = r_t + γ R_{t+1}."""
    returns = np.zeros(len(trajectory.turns))
    following = 0.0
    for step in reversed(range(len(trajectory.turns))):
        following = trajectory.turns[step].reward + gamma * following
        returns[step] = following
    return returns
