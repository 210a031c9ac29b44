"""An algorithm of one's own: RLOO, whose baseline is the mean of the other completions.

    layerpick train --layer 3 --algorithm examples/own_algorithm.py:Rloo

Source: Back to Basics (arXiv 2402.14740), equation 8.
"""

from collections.abc import Sequence

import numpy as np

from layerpick.training.algorithms.base import Algorithm, group_rewards, per_turn
from layerpick.training.episodes.trajectory import Trajectory


class Rloo(Algorithm):
    """A_i = r_i − mean of the other rewards; every token of every completion counts the same."""

    name = "rloo"
    about = "reward − mean of the others' rewards; sum over tokens"

    def advantages(self, group: Sequence[Trajectory]) -> list[np.ndarray]:
        """The same for every turn; a group of one has no others, and learns nothing."""
        rewards = group_rewards(group)
        others = (rewards.sum() - rewards) / max(len(rewards) - 1, 1)
        return per_turn(rewards - others if len(rewards) > 1 else 0 * rewards, group)

    def token_weight(self, generated: int, max_tokens: int) -> float:  # noqa: ARG002
        """1 / longest possible length, a constant: the sum over tokens, in the learning rate."""
        return 1.0 / max_tokens
