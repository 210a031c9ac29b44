"""Progress of long stages, on stderr; silent when stderr is not a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter(Protocol):
    """How a long computation tells a person where it is."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Begin a stage of `total` steps; call the result with the number of steps done."""

    def note(self, text: str) -> None:
        """Say one sentence."""


class Silent:
    """Reports nothing; for use as a library."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:  # noqa: ARG002
        """Ignore the stage."""
        return lambda _: None

    def note(self, text: str) -> None:
        """Ignore the sentence."""


class OnStderr:
    """Bars and notes on stderr."""

    def __init__(self, console: Console, progress: Progress):
        self._console = console
        self._progress = progress

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Add a bar."""
        bar = self._progress.add_task(name, total=total)
        return lambda done: self._progress.advance(bar, done)

    def note(self, text: str) -> None:
        """Print above the bars."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def reporting() -> Iterator[OnStderr]:
    """A reporter whose bars are drawn while the block runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield OnStderr(console, progress)
