"""Files that are whole or absent: written to a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel
from safetensors import SafetensorError

from layerpick.training.errors import LayerpickError

_LIST_OF_NUMBERS = re.compile(r"\[\n[^\]\[{}\"]*\]")
"""A raw line break tells it from brackets within a string."""


def cache_folder() -> Path:
    """Where layerpick keeps what it can make again (`$LAYERPICK_CACHE`, else the XDG cache)."""
    chosen = os.environ.get("LAYERPICK_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "layerpick"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`.

    Works for files and folders. On any exception, Ctrl-C included, the temporary is removed.
    Raises LayerpickError when the place cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        temporary = holder / path.name
        try:
            with _named(temporary, path):
                yield temporary
            _open_to_others(temporary, holder)
            if temporary.is_dir() and path.is_dir():
                shutil.rmtree(path)
            temporary.replace(path)
        finally:
            shutil.rmtree(holder, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write `path`, such as a full disk, into a LayerpickError."""
    try:
        yield
    except OSError as error:
        raise LayerpickError(f"Cannot write {path}: {error.strerror or error}.") from error
    except SafetensorError as error:  # its writer's own kind
        reason = str(error).rstrip(".")
        raise LayerpickError(f"Cannot write {path}: {reason}.") from error


@contextmanager
def _named(temporary: Path, path: Path) -> Iterator[None]:
    """An error of whatever writes below a temporary path names the place that is meant."""
    try:
        yield
    except LayerpickError as error:
        if str(temporary) not in str(error):
            raise
        raise LayerpickError(str(error).replace(str(temporary), str(path))) from error


def _open_to_others(written: Path, holder: Path) -> None:
    """Give files the mode that the umask says: safetensors lets only their owner read them."""
    sample = holder / ".mode"
    sample.touch()
    mode = sample.stat().st_mode & 0o777
    for path in (written, *written.rglob("*")) if written.is_dir() else (written,):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o777 | mode)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def as_json(value: BaseModel) -> str:
    """Indented JSON in which a list of numbers takes one line."""
    text = value.model_dump_json(indent=1)
    return _LIST_OF_NUMBERS.sub(lambda found: "".join(found[0].split()), text) + "\n"


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files, in order of name (64 hex digits)."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
