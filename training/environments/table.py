"""Every text world, by the name a person gives with `--env NAME?option=value&...`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from layerpick.training.environments.base import TextWorld
from layerpick.training.errors import LayerpickError
from layerpick.training.own_code import IN_A_FILE, find_class, offered, own_class
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
    key = "file.py" if IN_A_FILE.fullmatch(name) else name.partition(":")[0]
    kind = WORLDS.get(key)
    if kind is None and name in offered("world"):
        kind = WorldKind(name, "a world of an installed package", _offered)
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
    world = own_class(name, TextWorld, "environment")  # type: ignore[type-abstract]
    return construct(name, world, options)


def _offered(name: str, options: Mapping[str, Any]) -> TextWorld:
    world = find_class(name, {}, TextWorld, "world")  # type: ignore[type-abstract]
    return construct(name, world, options)


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
