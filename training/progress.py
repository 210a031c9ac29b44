"""How long work tells a person where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Writing(Protocol):
    """Who is told how far the writing of episodes is."""

    def wrote(self, tokens: int) -> None:
        """So many episodes are about to write one more token."""

    def ended(self, episodes: int) -> None:
        """So many episodes are over: a whole batch."""


class Unseen:
    """Tells nobody."""

    def wrote(self, tokens: int) -> None:
        """Ignore them."""

    def ended(self, episodes: int) -> None:
        """Ignore them."""


UNSEEN = Unseen()


class Reporter(Protocol):
    """How a long computation tells a person where it is."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Begin a stage of `total` steps; call the result with the number of steps done."""

    def writing(self, name: str, episodes: int, longest: int) -> Writing:
        """Begin the writing of so many episodes of at most `longest` tokens each."""

    def note(self, text: str) -> None:
        """Say one sentence."""


class Silent:
    """Reports nothing; for use as a library."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:  # noqa: ARG002
        """Ignore the stage."""
        return lambda _: None

    def writing(self, name: str, episodes: int, longest: int) -> Writing:  # noqa: ARG002
        """Ignore the writing."""
        return UNSEEN

    def note(self, text: str) -> None:
        """Ignore the sentence."""


SILENT = Silent()
