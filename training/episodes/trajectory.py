"""The one value that every task yields: a trajectory, and rollouts as groups of them.

A trajectory is a whole episode: the prompt, what the model wrote, and, between turns, what the
environment answered. A single-turn task is an episode with one turn. Only tokens inside a turn
were written by the model; everything else is context and is never trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MANY_CUT = 0.1
"""Share of completions cut off above which a person is warned."""


def hash_text(text: str) -> str:
    """Short, stable identity of an observation or a data set (16 hex digits of SHA-256)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Turn:
    """One stretch of text written by the model: tokens[start:end] of its trajectory."""

    start: int
    end: int
    observation: str
    """`hash_text` of what the model saw last: equal hashes are equal states (GiGPO's anchors)."""
    reward: float
    """Reward given for this turn alone."""
    cut: bool = False
    """Whether it was ended by the longest length, not by the model."""


@dataclass(frozen=True)
class Trajectory:
    """One episode sampled from the model."""

    group: int
    """Index of the prompt; trajectories of one group share it."""
    tokens: tuple[int, ...]
    turns: tuple[Turn, ...]
    reward: float
    """Episode reward."""
    failure: str | None = None
    """Why the environment ended the episode early (it raised or hung), if it did."""

    def __post_init__(self) -> None:
        position = 0
        for turn in self.turns:
            if not position <= turn.start <= turn.end <= len(self.tokens):
                raise ValueError(
                    f"turn {turn.start}:{turn.end} overlaps another or leaves "
                    f"the {len(self.tokens)} tokens"
                )
            position = turn.end

    @property
    def prompt_length(self) -> int:
        """Number of tokens before the first one that the model wrote."""
        return self.turns[0].start if self.turns else len(self.tokens)

    @property
    def model_mask(self) -> np.ndarray:
        """Shape (tokens,), bool: True where the model wrote the token."""
        mask = np.zeros(len(self.tokens), dtype=bool)
        for turn in self.turns:
            mask[turn.start : turn.end] = True
        return mask

    @property
    def cut(self) -> bool:
        """Whether any turn was cut off."""
        return any(turn.cut for turn in self.turns)

    @property
    def generated(self) -> int:
        """Number of tokens the model wrote."""
        return sum(turn.end - turn.start for turn in self.turns)


def share_cut(trajectories: Sequence[Trajectory]) -> float:
    """Share of episodes with a turn that was cut off; 0 of none."""
    return sum(each.cut for each in trajectories) / max(len(trajectories), 1)
