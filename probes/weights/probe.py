"""What the weights alone say: depth, size, and the spectra of each layer's matrices.

Reads safetensors files matrix by matrix, without loading the model: memory stays near a few
copies of the largest matrix. Limits: pickled weights are not read; quantised files would be read
as the numbers they store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import FeatureInfo, Measurement, Pace, Probe, ProbeInput
from layerpick.probes.weights.spectra import (
    power_law_exponent,
    singular_values,
    spectrum_snr,
    stable_rank,
)
from layerpick.training.errors import LayerpickError
from layerpick.training.models.sources import safe_files

SECONDS_PER_WEIGHT = 6e-8
"""Of a spectrum, on one core."""
SPECTRAL = ("spectrum_snr", "stable_rank", "power_law_alpha")


class WeightsProbe(Probe):
    """Depth, norms and spectra."""

    name = "weights"
    needs = "weights"
    headings: ClassVar[Mapping[str, str]] = {"spectrum_snr": "weight SNR"}
    features = (
        FeatureInfo("relative_depth", "0 at the input, 1 at the last layer", "k / (L − 1)", "–"),
        FeatureInfo("parameter_norm", "size of the layer's parameters", "‖θ‖₂", "–"),
        FeatureInfo(
            "spectrum_snr",
            "signal above the Marchenko–Pastur bound, against noise below it",
            "mean over matrices of Σ_{s>ε} s / Σ_{s≤ε} s / max s",
            "Spectrum (arXiv 2406.06623)",
        ),
        FeatureInfo(
            "stable_rank",
            "how many directions carry the matrices' weight",
            "mean over matrices of ‖W‖_F² / ‖W‖₂²",
            "Rudelson and Vershynin (arXiv math/0503442)",
        ),
        FeatureInfo(
            "power_law_alpha",
            "heaviness of the spectra's tails; smaller is heavier",
            "mean over matrices of α in p(λ) ∝ λ^−α",
            "WeightWatcher (arXiv 2002.06716)",
        ),
    )

    def seconds(self, probe_input: ProbeInput, pace: Pace) -> float:  # noqa: ARG002
        """The spectrum of every matrix."""
        layers = probe_input.model.layers
        return SECONDS_PER_WEIGHT * sum(layers.parameter_count(n) for n in range(len(layers)))

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per layer."""
        return probe_input.layer_count

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """Read the files of the loaded model; see `weight_features`."""
        layers, model = probe_input.model.layers, probe_input.model
        return weight_features(model.folder, layers.path, len(layers), model.device, on_done)


def weight_features(
    folder: Path,
    path: str,
    count: int,
    device: torch.device | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> Measurement:
    """Features of the `count` decoder layers that a model folder's files name by `path`.

    `path` is that of `DecoderLayers`, e.g. `model.layers`. Spectra are computed on `device`.
    Raises LayerpickError when the folder has no safetensors files or they lack a layer.
    """
    stored = stored_layers(folder, path, count)
    norms = np.zeros(count)
    spectra = np.zeros((count, len(SPECTRAL)))
    for layer, tensors in enumerate(stored):
        scores = []
        squares = 0.0
        for tensor in tensors:
            values = tensor.read()
            squares += float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
            for matrix in _matrices(values):
                scores.append(_scores(matrix.to(device or "cpu")))
        norms[layer] = squares**0.5
        spectra[layer] = np.mean(scores, axis=0)
        on_done(1)
    depth = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
    features = {"relative_depth": depth, "parameter_norm": norms}
    left_out = {}
    for name, scores_of_layers in zip(SPECTRAL, spectra.T, strict=True):
        if np.isfinite(scores_of_layers).all():
            features[name] = scores_of_layers
        else:
            left_out[name] = "a layer has a matrix whose spectrum is too short or too flat"
    return Measurement(features, tokens=0, left_out=left_out)


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor is stored."""

    file: Path
    name: str

    def read(self) -> Tensor:
        """Read it. The file is mapped only meanwhile, so pages that were read are given back."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.name)


def stored_layers(folder: Path, path: str, count: int) -> list[list[StoredTensor]]:
    """The tensors of each decoder layer, by file.

    Some checkpoints leave out the head of the model's path (`h.0.` for `transformer.h.0.`) or
    put more before it, so the longest common ending of the paths decides.
    """
    found: dict[str, list[list[StoredTensor]]] = {}
    pattern = re.compile(r"(.*?)\.(\d+)\..+")
    last = path.rpartition(".")[2]
    for tensor in _stored(folder):
        match = pattern.fullmatch(tensor.name)
        if match is None or match[1].rpartition(".")[2] != last or int(match[2]) >= count:
            continue
        layers = found.setdefault(match[1], [[] for _ in range(count)])
        layers[int(match[2])].append(tensor)
    complete = [name for name, layers in found.items() if all(layers)]
    if not complete:
        raise LayerpickError(
            f"The safetensors files in {folder} do not hold the {count} decoder layers {path}.*: "
            f"leave out the probe 'weights'."
        )
    return found[max(complete, key=lambda name: _common_ending(name, path))]


def _stored(folder: Path) -> Iterator[StoredTensor]:
    from safetensors import safe_open

    files = safe_files(str(folder), folder)
    if not files:
        raise LayerpickError(
            f"{folder} has no safetensors files for the probe 'weights': leave it out, or save "
            f"the model as safetensors."
        )
    for path in files:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        yield from (StoredTensor(path, name) for name in names)


def _common_ending(first: str, second: str) -> int:
    """Number of path segments that two module paths share at their end."""
    pairs = zip(first.split(".")[::-1], second.split(".")[::-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _matrices(values: Tensor) -> Iterator[Tensor]:
    """A matrix is itself, a stack of them (experts) is each; vectors have no spectrum."""
    if values.ndim == 2 and min(values.shape) > 1:
        yield values
    elif values.ndim > 2:
        for part in values:
            yield from _matrices(part)


def _scores(matrix: Tensor) -> tuple[float, ...]:
    rows, columns = matrix.shape
    values = singular_values(matrix)
    if len(values) == 0:
        return (float("nan"),) * len(SPECTRAL)
    return (
        spectrum_snr(values, (rows, columns)),
        stable_rank(values),
        power_law_exponent(values),
    )
