"""Local files for workers elsewhere: packed into Ray's object store, unpacked once on each node.

A file or folder keeps its name, so that what is called after it is called the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerpick.training.files import cache_folder, hash_files, replacing
from layerpick.training.sweeps.ray_tasks import RayTasks


@dataclass(frozen=True)
class Parcel:
    """A file, or a folder with the files in it."""

    name: str
    digest: str
    contents: Mapping[str, Any]
    """References to the bytes, by path within the folder; a file's own is ``."""


def pack(path: Path, tasks: RayTasks) -> Parcel:
    """Put a file or a folder into the object store."""
    path = path.resolve()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    contents = {
        "" if file == path else str(file.relative_to(path)): tasks.put(_read(file))
        for file in files
    }
    return Parcel(path.name, hash_files(files), contents)


def unpack(parcel: Parcel) -> Path:
    """On a worker: write a parcel into the node's cache, unless it lies there already."""
    from filelock import FileLock

    folder = cache_folder() / "ray" / parcel.digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / parcel.name
    with FileLock(folder / ".lock"):
        if not target.exists():
            with replacing(target) as temporary:
                _write(parcel, temporary)
    return target


def _read(file: Path) -> np.ndarray:
    """A file's bytes (uint8), mapped, so that they are copied once."""
    size = file.stat().st_size
    return np.memmap(file, np.uint8, "r") if size else np.empty(0, np.uint8)


def _write(parcel: Parcel, place: Path) -> None:
    import ray

    for name, reference in parcel.contents.items():
        file = place / name if name else place
        file.parent.mkdir(parents=True, exist_ok=True)
        ray.get(reference).tofile(file)
