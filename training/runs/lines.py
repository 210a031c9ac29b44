"""Files of one record a line, which a kill may cut short in its last line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from layerpick.training.files import write_text, writing

Kind = TypeVar("Kind", bound=BaseModel)


def append_line(path: Path, record: BaseModel) -> None:
    """Add one record. Raises LayerpickError when the place cannot be written."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(record.model_dump_json() + "\n")


def read_lines(path: Path, kind: type[Kind]) -> list[Kind]:
    """All records, in order; a line that a kill has cut short ends them."""
    records: list[Kind] = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError:
            break
    return records


def write_lines(path: Path, records: Iterable[BaseModel]) -> None:
    """Write the file anew, whole or not at all."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))
