"""GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerpick.training.algorithms.base import Algorithm, group_rewards, normalised, per_turn
from layerpick.training.episodes.trajectory import Trajectory


class Grpo(Algorithm):
    """Rewards normalised by the group's mean and standard deviation; mean over tokens."""

    name = "grpo"
    about = "(reward − group mean) / group std; mean over each completion's tokens"
    advantages_by_trl = True

    def advantages(self, group: Sequence[Trajectory]) -> list[np.ndarray]:
        """A_i = (r_i − mean r) / (std r + 1e-4), the same for every turn."""
        return per_turn(normalised(group_rewards(group)), group)

    def token_weight(self, generated: int, max_tokens: int) -> float:  # noqa: ARG002
        """1 / length, so that every trajectory counts the same."""
        return 1.0 / max(generated, 1)
