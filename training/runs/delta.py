"""The trained layer by itself: `layer_delta.safetensors`.

It holds the new weights, not differences, so that putting them into the base model is exact; its
header says which weights they belong to, and they go into no others. A checksum in the header tells
a damaged file from a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from layerpick.training.errors import LayerpickError
from layerpick.training.files import replacing
from layerpick.training.models.defaults import DEFAULTS_FILE
from layerpick.training.models.formats import DTYPES
from layerpick.training.models.loading import LoadedModel, load_model
from layerpick.training.reading import read_json, reading
from layerpick.training.runs.card import model_card
from layerpick.training.runs.folder import DELTA_FILE
from layerpick.training.tensor_files import (
    checksum_of,
    read_tensors,
    require_finite,
    save_tensors,
)
from layerpick.training.values import NonNegative, Record

FORMAT = "layerpick-delta-2"
PACKAGES = ("layerpick", "torch", "transformers", "trl", "safetensors")


class DeltaOrigin(Record):
    """What trained weights belong to and come from."""

    base_model: str = Field(description="Hub id or folder, as it was given")
    revision: str | None
    weights_hash: str = Field(description="SHA-256 over the base model's weight files")
    dtype: str = Field(description="number format of the frozen weights in training")
    layers: tuple[int, ...] | None = Field(description="decoder layers; null: everything")
    boosted: tuple[int, ...] = Field(default=(), description="layers at a multiple of the rate")
    boost_factor: float = Field(default=1.0, description="that multiple")
    algorithm: str
    task: str
    source: str = Field(description="data set, generator or world")
    steps: int
    learning_rate: NonNegative
    seed: int
    versions: dict[str, str] = Field(
        default_factory=lambda: {package: version(package) for package in PACKAGES}
    )

    @property
    def trained(self) -> str:
        """What was trained, in words."""
        if self.boosted:
            boosted = ", ".join(map(str, self.boosted))
            return (
                f"all parameters, decoder layer{'s' if len(self.boosted) > 1 else ''} {boosted} at "
                f"{self.boost_factor:g} times the rate,"
            )
        if self.layers is None:
            return "all parameters"
        listed = ", ".join(str(layer) for layer in self.layers)
        return f"decoder layer{'s' if len(self.layers) > 1 else ''} {listed} alone"


def save_delta(path: Path, trained: Mapping[str, Tensor], origin: DeltaOrigin) -> str:
    """Write trained weights, whole or not at all; returns their checksum.

    Raises LayerpickError when training has ruined them.
    """
    require_finite(trained, "The trained weight", "the run diverged; use a lower --learning-rate")
    header = {"format": FORMAT, "origin": origin.model_dump_json()}
    return save_tensors(path, trained, header)


def read_delta(path: Path) -> tuple[dict[str, Tensor], DeltaOrigin]:
    """Trained weights and their origin, from a run's folder or a delta file.

    Raises LayerpickError for anything else, and for a file that was damaged.
    """
    file = path / DELTA_FILE if path.is_dir() else path
    if not file.is_file():
        raise LayerpickError(f"{path} holds no {DELTA_FILE}: `layerpick train` writes one.")
    what, remedy = "a trained layer", "train it again"
    tensors, header = read_tensors(file, FORMAT, what, remedy)
    with reading(file, what, remedy):
        origin = DeltaOrigin.model_validate_json(header["origin"])
        if not tensors:
            raise ValueError("it holds no tensors")
    require_finite(tensors, f"In {file}, the weight", remedy)
    return tensors, origin


def whole_checksum(path: Path) -> str | None:
    """The checksum of a run's trained layer; None where that is missing or damaged."""
    try:
        tensors, header = read_tensors(path / DELTA_FILE, FORMAT, "a trained layer", "train it")
    except LayerpickError:
        return None
    return checksum_of(tensors, header)


def load_with_delta(
    path: Path | str, base: str | None = None, *, dtype: str | None = None, **loading: Any
) -> LoadedModel:
    """The base model with a run's trained layer in it, ready to write text.

    `base` is where the base model is now, if it has moved; `dtype` is that of training unless
    given; `loading` are further options of `load_model`. Raises LayerpickError when the base
    model's weights are not those that the layer was trained in.
    """
    tensors, origin = read_delta(Path(path))
    if base is None and origin.revision is not None:
        loading.setdefault("revision", origin.revision)
    model = load_model(base or origin.base_model, dtype=dtype or origin.dtype, **loading)
    if model.identity.weights_hash != origin.weights_hash:
        raise LayerpickError(
            f"{path} was trained in other weights than those of {model.identity.name} "
            f"({origin.weights_hash[:12]}…, not {model.identity.weights_hash[:12]}…): give the "
            f"base model it belongs to, {origin.base_model}, with --base."
        )
    put_in(model, tensors)
    return model


@torch.no_grad()
def put_in(model: LoadedModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy trained weights over the model's own. Raises LayerpickError where they do not fit."""
    parameters = dict(model.model.named_parameters())
    for name, tensor in tensors.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise LayerpickError(
                f"{model.identity.name} has no parameter {name} of shape {tuple(tensor.shape)}: "
                f"this version of transformers builds it differently."
            )
        parameters[name].copy_(tensor)
    placed = {name: parameters[name] for name in tensors}
    require_finite(placed, "The trained weight", f"{model.dtype} cannot hold it; use float32")


def apply(
    path: Path | str,
    out: Path | str,
    base: str | None = None,
    *,
    dtype: str | None = None,
    **loading: Any,
) -> DeltaOrigin:
    """Write the base model with the trained layer merged in as an ordinary Hugging Face folder.

    Raises LayerpickError as `load_with_delta` does, and when `out` is something else's folder.
    """
    path, out = Path(path), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LayerpickError(f"{out} exists already: give another --out.")
    if dtype is not None and dtype not in DTYPES:
        raise LayerpickError(f"The dtype '{dtype}' is unknown: use {', '.join(DTYPES)}.")
    _, origin = read_delta(path)
    model = load_with_delta(path, base, dtype=dtype, **loading)
    with replacing(out) as folder:
        model.model.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        _keep_defaults(model.folder, folder)
        (folder / "README.md").write_text(model_card(origin, path), "utf-8")
    return origin


def _keep_defaults(base: Path, merged: Path) -> None:
    """How the base model wants to be asked holds for the merged one as well."""
    source = base / DEFAULTS_FILE
    if not source.is_file():
        return
    (merged / DEFAULTS_FILE).write_bytes(source.read_bytes())
    defaults = read_json(source, "a model's defaults", "mend it, or take it away")
    dataset = defaults.get("dataset") if isinstance(defaults, dict) else None
    if isinstance(dataset, str) and (base / dataset).is_file():
        (merged / dataset).write_bytes((base / dataset).read_bytes())
