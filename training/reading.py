"""The one place where whatever is wrong with a file becomes a sentence that names it.

Only parsing belongs inside `reading`: any exception there, a library's own included, is the file's
fault. What happens with the values afterwards is ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from layerpick.training.errors import LayerpickError

Kind = TypeVar("Kind", bound=BaseModel)
LONGEST = 300
"""Characters of another's message that are passed on."""


@contextmanager
def reading(path: Path | str, what: str, remedy: str) -> Iterator[None]:
    """Turn any failure to read `path` into a LayerpickError.

    `what` is what it should be ("a table of features"), `remedy` what to do about it.
    """
    try:
        yield
    except LayerpickError:
        raise
    except Exception as error:
        raise LayerpickError(
            f"{path} cannot be read as {what} ({reason_of(error)}): {remedy}."
        ) from error


def read_record(path: Path, kind: type[Kind], what: str, remedy: str) -> Kind:
    """A pydantic value from a JSON file. Raises LayerpickError for anything else."""
    with reading(path, what, remedy):
        return kind.model_validate_json(path.read_bytes())


def read_json(path: Path, what: str, remedy: str) -> Any:
    """Plain JSON from a file. Raises LayerpickError for anything else."""
    with reading(path, what, remedy):
        return json.loads(path.read_text("utf-8"))


def reason_of(error: Exception) -> str:
    """One line about an exception, for the end of a sentence."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        text = f"{where}: {first['msg']}" if where else str(first["msg"])
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif isinstance(error, UnicodeDecodeError):
        text = f"byte {error.start} is not UTF-8"
    elif isinstance(error, RecursionError):
        text = "it is nested too deeply"
    elif isinstance(error, KeyError):
        text = f"{error} is missing"
    else:
        text = " ".join(str(error).split()) or type(error).__name__
    return text[:LONGEST].rstrip(".")
