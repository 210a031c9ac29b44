"""Dr. GRPO (Understanding R1-Zero-Like Training, arXiv 2503.20783, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from layerpick.training.algorithms.base import Algorithm, group_rewards, per_turn
from layerpick.training.episodes.trajectory import Trajectory


class DrGrpo(Algorithm):
    """GRPO without the normalisations by standard deviation and by length."""

    name = "dr_grpo"
    about = "reward − group mean; sum over tokens / the longest possible completion"
    trl: ClassVar[Mapping[str, Any]] = {"loss_type": "dr_grpo", "scale_rewards": "none"}
    advantages_by_trl = True

    def advantages(self, group: Sequence[Trajectory]) -> list[np.ndarray]:
        """A_i = r_i − mean r, the same for every turn."""
        rewards = group_rewards(group)
        return per_turn(rewards - rewards.mean(), group)

    def token_weight(self, generated: int, max_tokens: int) -> float:  # noqa: ARG002
        """1 / longest possible length: a constant, so that length earns nothing."""
        return 1.0 / max_tokens
