"""How long work tells a person where it is."""

from __future__ import annotations

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
