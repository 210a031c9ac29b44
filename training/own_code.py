"""What users add: Python files named on the command line, and what installed packages offer.

A file is named as `file.py:Name`. It runs with the user's rights, which is what naming it asks
for. A package offers a class as an entry point of the group `layerpick.probes`, `layerpick.tasks`,
`layerpick.algorithms`, `layerpick.regressors` or `layerpick.worlds`.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from layerpick.training.errors import LayerpickError

Kind = TypeVar("Kind")
IN_A_FILE = re.compile(r".+\.py:\w+")


def find_class(
    name: str,
    known: Mapping[str, type[Kind] | str],
    base: type[Kind],
    kind: str,
    others: Sequence[str] = (),
) -> type[Kind]:
    """The class called that: a built-in one, one in a file, or one of an installed package.

    `known` gives the built-in ones by name, themselves or as `module:Class`; `kind` is what such
    a class is called in messages, `others` what else could have been named. Raises LayerpickError
    if there is none, or it is none of these.
    """
    found: Any = known.get(name)
    if found is None and IN_A_FILE.fullmatch(name):
        return own_class(name, base, kind)
    if found is None:
        found = offered(kind).get(name)
    if found is None:
        names = ", ".join([*known, *offered(kind), *others])
        raise LayerpickError(f"The {kind} '{name}' is unknown: use {names}, or file.py:ClassName.")
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)
    return _checked(found, base, f"The {kind} '{name}'")


def own_class(name: str, base: type[Kind], kind: str) -> type[Kind]:
    """The class that `file.py:ClassName` names. Raises LayerpickError if there is none."""
    file, _, attribute = name.rpartition(":")
    found = getattr(import_file(Path(file), kind), attribute, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise LayerpickError(
            f"The {kind} file {file} has no class '{attribute}' that derives from {base.__name__}."
        )
    return _checked(found, base, f"The class {attribute} in {file}")


def import_file(path: Path, kind: str) -> ModuleType:
    """Run a Python file as a module, once; `kind` is what it is called in messages.

    Raises LayerpickError if the file is missing or does not run.
    """
    if not path.is_file():
        raise LayerpickError(f"The {kind} file {path} does not exist.")
    return _imported(path, path.resolve().stat().st_mtime_ns, kind)


@cache
def _imported(path: Path, changed: int, kind: str) -> ModuleType:  # noqa: ARG001
    """A file that has changed since is run again."""
    spec = importlib.util.spec_from_file_location(f"layerpick_{kind}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise LayerpickError(
            f"The {kind} file {path} failed to run: {type(error).__name__}: {error}."
        ) from error
    return module


@cache
def offered(kind: str) -> Mapping[str, str]:
    """What installed packages offer, by name, as `module:Class`."""
    return {each.name: each.value for each in entry_points(group=f"layerpick.{kind}s")}


def _checked(found: type, base: type[Kind], what: str) -> type[Kind]:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise LayerpickError(f"{what} does not derive from {base.__name__}.")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise LayerpickError(f"{what} lacks what every {base.__name__} has: {missing}.")
    return found
