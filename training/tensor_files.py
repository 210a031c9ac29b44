"""Tensors with a text header in a safetensors file that notices when it is damaged.

The header holds a checksum over names, types, shapes and contents of all tensors and over the rest
of the header, so that no file that lost or changed a byte is taken for a whole one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from layerpick.training.errors import LayerpickError
from layerpick.training.files import replacing
from layerpick.training.reading import reading

_CHECKSUM = "sha256"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """Write a file whole or not at all; returns its checksum (64 hex digits)."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    checksum = checksum_of(plain, header)
    with replacing(path) as temporary:
        save_file(plain, temporary, {**header, _CHECKSUM: checksum})
    return checksum


def read_tensors(
    path: Path, form: str, what: str, remedy: str, *, must_be_signed: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file whose header says `format` = `form`.

    Raises LayerpickError for a file that is damaged or something else. Files of older versions
    have no checksum; they are read where `must_be_signed` is false.
    """
    from safetensors import safe_open

    with reading(path, what, remedy):
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.get("format") != form:
            raise ValueError(f"its format is not {form}")
        checksum = header.pop(_CHECKSUM, None)
        if checksum is None and must_be_signed:
            raise ValueError("it has no checksum")
        if checksum not in (None, checksum_of(tensors, header)):
            raise ValueError("its checksum is wrong: it was damaged or changed")
    return tensors, header


def checksum_of(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 over all tensors and the header, in order of name (64 hex digits)."""
    digest = hashlib.sha256()
    for key, value in sorted(header.items()):
        digest.update(f"{key}={len(value)}:{value};".encode("utf-8", "surrogatepass"))
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_finite(tensors: Mapping[str, Tensor], whose: str, remedy: str) -> None:
    """Raise LayerpickError, naming the first tensor, where weights are infinite or not numbers."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise LayerpickError(
                f"{whose} {name} holds values that are infinite or not numbers: {remedy}."
            )
