"""One adapter for every text world: `reset(seed)`, then `step(action)` until done."""

from __future__ import annotations

import re
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

    Implementations may raise or hang: the agentic task records that and ends the episode. They
    must be deterministic: equal seeds and equal actions give equal observations and rewards.
    Even seeds are training episodes, odd seeds are held out.
    """

    rules: str = ""
    """What a model is told once, before the first observation."""
    actions: tuple[str, ...] = ()
    """All actions, in lower case; none when actions are free text."""
    turns: int = 20
    """Turns an episode gets unless a person chooses otherwise."""

    @abstractmethod
    def reset(self, seed: int) -> str:
        """Start an episode; equal seeds give equal episodes. Returns the first observation."""

    @abstractmethod
    def step(self, action: str) -> WorldStep:
        """Act; `action` is what the model wrote, trimmed of white space."""

    def close(self) -> None:  # noqa: B027 - most worlds hold nothing
        """Release what the world holds."""

    def read(self, text: str) -> str | None:
        """The action that a model's text means, or None if it means none.

        With `actions`: the text itself, whatever its case, or else the only action it mentions.
        Free text: its last line that is not empty.
        """
        if not self.actions:
            return next((line.strip() for line in text.split("\n")[::-1] if line.strip()), None)
        words = text.strip().lower()
        if words in self.actions:
            return words
        mentioned = [name for name in self.actions if re.search(rf"\b{re.escape(name)}\b", words)]
        return mentioned[0] if len(mentioned) == 1 else None
