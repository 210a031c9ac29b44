"""Every text world, by the name a person gives with `--env NAME?option=value&...`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerpick.training.environments.base import TextWorld
from layerpick.training.errors import LayerpickError
from layerpick.training.own_code import import_file
from layerpick.training.tasks.rows import parse_options

DEFAULT_TIMEOUT = 10.0
"""Seconds that a world may take for one step; starting an episode may take twelve times that."""


@dataclass(frozen=True)
class WorldKind:
    """One family of worlds."""

    pattern: str
    """What its names look like, as shown to a person."""
    about: str
    load: Callable[[str, Mapping[str, Any]], TextWorld]
    """Name and options → a world. Raises LayerpickError for what a person must change."""
    in_process: bool = False
    """Its worlds can neither hang nor crash, so they need no process of their own."""


@dataclass(frozen=True)
class WorldSpec:
    """A parsed `--env` value."""

    text: str
    name: str
    options: Mapping[str, Any]
    kind: WorldKind
    timeout: float


def parse_world(text: str) -> WorldSpec:
    """Find a world's kind, options and time limit.

    Raises LayerpickError for an unknown name or a bad time limit.
    """
    name, options = parse_options(text)
    key = "file.py" if _FILE.fullmatch(name) else name.partition(":")[0]
    kind = WORLDS.get(key)
    if kind is None:
        known = ", ".join(kind.pattern for kind in WORLDS.values())
        raise LayerpickError(f"There is no environment '{name}'; --env takes one of {known}.")
    timeout = DEFAULT_TIMEOUT if kind.in_process else options.pop("timeout", DEFAULT_TIMEOUT)
    if type(timeout) not in (int, float) or not 0 < timeout < float("inf"):
        raise LayerpickError(f"The timeout in '{text}' must be a positive number of seconds.")
    return WorldSpec(text, name, options, kind, timeout)


def make_world(spec: str) -> TextWorld:
    """The world of an `--env` value: `FrozenLake-v1?size=4`, `textworld:tw-simple`, `my.py:World`.

    Raises LayerpickError for an unknown name or option, a bad value or a missing extra.
    """
    world = parse_world(spec)
    return world.kind.load(world.name, world.options)


def construct(name: str, world: Callable[..., TextWorld], options: Mapping[str, Any]) -> TextWorld:
    """Call a world's class with a person's options.

    Raises LayerpickError naming the option that is unknown, missing or of a wrong value.
    """
    from pydantic import ValidationError

    signature = inspect.signature(world)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise LayerpickError(f"The options of '{name}' are {known}: {error}.") from error
    try:
        return world(**options)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise LayerpickError(
            f"The option {place}={first['input']} of '{name}' is wrong: {first['msg']}."
        ) from error


def _toy(name: str, options: Mapping[str, Any]) -> TextWorld:
    from layerpick.training.environments.toy_text import TOY_WORLDS

    return construct(name, TOY_WORLDS[name], options)


def _textworld(name: str, options: Mapping[str, Any]) -> TextWorld:
    from layerpick.training.environments.textworld import load_textworld

    return load_textworld(name, options)


def _alfworld(name: str, options: Mapping[str, Any]) -> TextWorld:
    from layerpick.training.environments.alfworld import AlfWorld

    return construct(name, AlfWorld, options)


def _own(name: str, options: Mapping[str, Any]) -> TextWorld:
    file, _, class_name = name.rpartition(":")
    path = Path(file)
    world = getattr(import_file(path, "environment"), class_name, None)
    if not (isinstance(world, type) and issubclass(world, TextWorld)):
        raise LayerpickError(
            f"The environment file {path} has no class '{class_name}' that derives from TextWorld."
        )
    return construct(name, world, options)


_FILE = re.compile(r".+\.py:\w+")
WORLDS: Mapping[str, WorldKind] = {
    "FrozenLake-v1": WorldKind(
        "FrozenLake-v1", "cross the ice without falling into a hole", _toy, in_process=True
    ),
    "CliffWalking-v1": WorldKind(
        "CliffWalking-v1", "walk along a cliff without stepping over it", _toy, in_process=True
    ),
    "Taxi-v4": WorldKind(
        "Taxi-v4", "pick a passenger up and drop them where they want", _toy, in_process=True
    ),
    "textworld": WorldKind("textworld:GAME", "a TextWorld game, generated locally", _textworld),
    "alfworld": WorldKind("alfworld", "household tasks of ALFWorld's data set", _alfworld),
    "file.py": WorldKind("file.py:ClassName", "your own TextWorld class", _own),
}
