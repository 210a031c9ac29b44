"""One adapter for every text world: `reset(seed)`, then `step(action)` until done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class WorldStep:
    """What a world answers to one action."""

    observation: str
    reward: float
    done: bool
    valid: bool = True
    """False when the action was not one the world knows; the world's state is then unchanged."""


class TextWorld(ABC):
    """A world that is read and acted on in text.

    Implementations may raise or hang: the agentic task records that and ends the episode.
    """

    @abstractmethod
    def reset(self, seed: int) -> str:
        """Start an episode; equal seeds give equal episodes. Returns the first observation."""

    @abstractmethod
    def step(self, action: str) -> WorldStep:
        """Act; `action` is what the model wrote, trimmed of white space."""

    def close(self) -> None:  # noqa: B027 - most worlds hold nothing
        """Release what the world holds."""
