"""What a page is made of, as plain values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import join

from rich.table import Table as RichTable
from rich.text import Text


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by any column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    """Rows that matter most."""


@dataclass(frozen=True)
class Chart:
    """A drawing that answers to the pointer and the keyboard."""

    title: str
    svg: str
    note: str = ""
    tips: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Lines of text by the id of what they are about in the drawing."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Names of groups in the drawing by their ids: one of them is shown at a time."""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    title: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Lines:
    """Sentences, or a command."""

    title: str
    lines: tuple[str, ...]
    is_command: bool = False


Part = Table | Chart | Facts | Lines


@dataclass(frozen=True)
class Page:
    """One report."""

    title: str
    headline: str
    """The sentence that matters."""
    parts: tuple[Part, ...]


def plain(line: str) -> str:
    """A sentence for the terminal without its markup."""
    return Text.from_markup(line).plain


def from_rich(table: RichTable, title: str | None = None) -> Table:
    """A table for the terminal as one for a page; rows in bold are marked."""
    columns = tuple(str(column.header) for column in table.columns)
    cells = [[_text(cell) for cell in column.cells] for column in table.columns]
    marked = frozenset(
        index for index, row in enumerate(table.rows) if "bold" in str(row.style or "")
    )
    return Table(
        title or _text(table.title or ""), columns, tuple(zip(*cells, strict=True)), marked
    )


def how_made(command: Sequence[str] | None = None) -> Lines:
    """The command that made the page, where one did."""
    words = list(sys.argv if command is None else command)
    if Path(words[0]).name not in ("layerpick", "__main__.py"):
        return Lines("How to make it again", ("Made from Python; see the settings.",))
    return Lines("How to make it again", (join(["layerpick", *words[1:]]),), is_command=True)


def _text(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else plain(str(cell))
