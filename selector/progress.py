"""Progress of long stages, on stderr; bars where stderr is a terminal, notes everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from layerpick.training.progress import Reporter, Silent, Writing

__all__ = ["OnStderr", "Reporter", "Silent", "reporting"]

LONG = 60.0
"""Seconds of writing that a person is told of beforehand."""
FULL_BARS = 8
"""Bars of what is done that stay in sight."""
FIRST_LOOK = 10.0
"""Seconds after which the longest time that it can take is known well enough."""


class OnStderr:
    """Bars and notes on stderr."""

    def __init__(self, console: Console, progress: Progress):
        self._console = console
        self._progress = progress

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Add a bar."""
        bar = self._bar(name, total)
        return lambda done: self._progress.advance(bar, done)

    def writing(self, name: str, episodes: int, longest: int) -> Writing:
        """Add a bar of tokens; says once how long it will take if that is long."""
        bar = self._bar(name, episodes * longest, unit="tokens")

        def show(tokens: int, total: float) -> None:
            self._progress.update(bar, completed=tokens, total=total)

        return Expectation(name, episodes, longest, self.note, show)

    def note(self, text: str) -> None:
        """Print above the bars."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _bar(self, name: str, total: float, unit: str = "") -> TaskID:
        """A new bar; of those that are full, only the last few stay, so that it can be seen."""
        full = [task.id for task in self._progress.tasks if task.finished]
        for old in full[:-FULL_BARS]:
            self._progress.update(old, visible=False)
        return self._progress.add_task(name, total=total, unit=unit)


class Expectation:
    """How long the writing will take: at most, from the first tokens; about, from the first batch.

    `show` is told the tokens written and those expected in all.
    """

    def __init__(
        self,
        name: str,
        episodes: int,
        longest: int,
        note: Callable[[str], None],
        show: Callable[[int, float], None] = lambda *_: None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._name, self._episodes, self._longest = name, episodes, longest
        self._note, self._show, self._clock = note, show, clock
        self._start = clock()
        self._steps = self._tokens = self._done = self._rows = 0
        self._looked = False

    def wrote(self, tokens: int) -> None:
        """Count them."""
        self._rows = max(self._rows, tokens)
        self._steps += 1
        self._tokens += tokens
        self._show(self._tokens, max(self._expected, self._tokens))
        spent = self._clock() - self._start
        if not self._done and not self._looked and spent > FIRST_LOOK:
            self._looked = True
            batches = -(-self._episodes // self._rows)
            most = spent / self._steps * self._longest * batches
            if most > LONG:
                self._note(
                    f"{self._name}: at most {in_time(most)} ({self._episodes:,} completions of up "
                    f"to {self._longest:,} tokens, {self._rows} at a time)."
                )

    def ended(self, episodes: int) -> None:
        """Say after the first batch how long the others will take."""
        first = not self._done
        self._done += episodes
        left = (self._clock() - self._start) * (self._episodes / self._done - 1)
        if first and left > LONG:
            self._note(
                f"{self._name}: about {in_time(left)} more; the first {episodes} completions have "
                f"{self._tokens / episodes:,.0f} tokens on average."
            )
        self._show(self._tokens, max(self._expected, self._tokens))

    @property
    def _expected(self) -> float:
        """Tokens in all, as far as is known."""
        if not self._done:
            return self._episodes * self._longest
        return self._tokens * self._episodes / self._done


def in_time(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class _Done(ProgressColumn):
    """Steps done of all, or tokens written."""

    def render(self, task: Task) -> Text:
        if task.fields.get("unit"):
            return Text(f"{int(task.completed):,} {task.fields['unit']}")
        return Text(f"{int(task.completed):,}/{int(task.total or 0):,}")


@contextmanager
def reporting() -> Iterator[OnStderr]:
    """A reporter whose bars are drawn while the block runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        _Done(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield OnStderr(console, progress)
