"""Gradients reduced as they appear: exact squared norms, and a fixed subset of coordinates.

Keeping a whole gradient per micro-batch would cost many times the model. Kept are, per layer and
micro-batch, the exact squared norm and the values at fixed random coordinates, with the weight
w = (parameter's size) / (coordinates kept of it). Then Σ_c w_c f(a_c, b_c) estimates, without
bias over the choice of coordinates, any sum Σ f(a_i, b_i) over the layer's coordinates: inner
products, Fisher-weighted ones, sums of absolute values. Small layers are kept whole, and the
estimates are then exact.

Each parameter is of one kind, by its path within the layer: a norm if a part of the path contains
"norm" or begins with "ln", else attention if a part contains "attn" or "attention", else MLP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from layerpick.probes.reading.passes import requiring_gradients
from layerpick.training.models.layers import DecoderLayers

COORDINATES_PER_LAYER = 1 << 17
"""Layers with at most this many parameters are kept whole."""
FEWEST_PER_PARAMETER = 256
"""Small parameters (norms, biases) have large gradients: keep them whole."""


KINDS = ("attention", "mlp", "norms")


def parameter_kind(name: str) -> str:
    """One of KINDS, from a parameter's path within its layer."""
    parts = name.lower().split(".")
    if any("norm" in part or re.match(r"ln(_|\d|$)", part) for part in parts):
        return "norms"
    if any("attn" in part or "attention" in part for part in parts):
        return "attention"
    return "mlp"


@dataclass(frozen=True)
class LayerSketch:
    """All micro-batch gradients of one layer."""

    values: Tensor
    """(micro-batches, coordinates), float32, on the CPU."""
    weights: Tensor
    """(coordinates,), float64: how many coordinates each stands for."""
    columns: Mapping[str, slice]
    """Which coordinates belong to the parameters of each kind."""
    squared_norms: Tensor
    """(kinds, micro-batches), float64: exact ‖g‖² of the parameters of each kind."""


@dataclass
class _Slice:
    """Where one parameter's kept coordinates go."""

    index: Tensor | None
    """Kept coordinates; None keeps all."""
    columns: slice
    kind: int
    """Index into KINDS."""


@dataclass
class _Plan:
    """What is kept of one layer."""

    slices: dict[str, _Slice]
    weights: Tensor
    columns: dict[str, slice]


class GradientSketcher:
    """Collects gradients of decoder layers, one micro-batch after another."""

    def __init__(self, layers: DecoderLayers, micro_batches: int, seed: int):
        self._layers = layers
        self._generator = torch.Generator().manual_seed(seed)
        self._plans = [self._plan(module) for module in layers]
        self._values = [
            torch.zeros(micro_batches, len(plan.weights), dtype=torch.float32)
            for plan in self._plans
        ]
        self._norms = torch.zeros(len(layers), len(KINDS), micro_batches, dtype=torch.float64)
        self._current, self._in_parts = 0, False
        self._takers: list[tuple[nn.Parameter, Callable[[nn.Parameter], None]]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let the layers' parameters require gradients, and take each gradient as it appears."""
        with requiring_gradients(self._layers), self._taking():
            yield

    @contextmanager
    def _taking(self) -> Iterator[None]:
        def soon(parameter: nn.Parameter, take: Callable[[nn.Parameter], None]) -> None:
            if not self._in_parts:
                take(parameter)

        handles = []
        for layer, module in enumerate(self._layers):
            for name, parameter in module.named_parameters():
                take = self._taker(layer, self._plans[layer].slices[name])
                self._takers.append((parameter, take))
                hook = partial(soon, take=take)
                handles.append(parameter.register_post_accumulate_grad_hook(hook))
        try:
            yield
        finally:
            self._takers.clear()
            for handle in handles:
                handle.remove()

    @contextmanager
    def micro_batch(self, index: int, *, in_parts: bool = False) -> Iterator[None]:
        """Gradients that appear while open belong to this micro-batch.

        In parts: several backward passes add up to it, and it is taken at the end.
        """
        self._current, self._in_parts = index, in_parts
        yield
        if in_parts:
            for parameter, take in self._takers:
                if parameter.grad is not None:
                    take(parameter)
            self._in_parts = False

    def sketch(self, layer: int) -> LayerSketch:
        """What was collected of one layer."""
        plan = self._plans[layer]
        return LayerSketch(self._values[layer], plan.weights, plan.columns, self._norms[layer])

    def _plan(self, module: nn.Module) -> _Plan:
        total = sum(parameter.numel() for parameter in module.parameters())
        share = min(1.0, COORDINATES_PER_LAYER / total)
        slices: dict[str, _Slice] = {}
        columns: dict[str, slice] = {}
        weights: list[Tensor] = []
        end = 0
        for index, kind in enumerate(KINDS):
            first = end
            for name, parameter in module.named_parameters():
                if parameter_kind(name) != kind:
                    continue
                size = parameter.numel()
                kept = min(size, max(FEWEST_PER_PARAMETER, round(share * size)))
                chosen = None if kept == size else _distinct(size, kept, self._generator)
                slices[name] = _Slice(chosen, slice(end, end + kept), index)
                weights.append(torch.full((kept,), size / kept, dtype=torch.float64))
                end += kept
            columns[kind] = slice(first, end)
        return _Plan(slices, torch.cat(weights), columns)

    def _taker(self, layer: int, place: _Slice) -> Callable[[nn.Parameter], None]:
        def take(parameter: nn.Parameter) -> None:
            gradient = parameter.grad
            assert gradient is not None
            flat = gradient.detach().flatten()
            parameter.grad = None
            self._norms[layer, place.kind, self._current] += float(flat.float().square().sum())
            kept = flat if place.index is None else flat[place.index.to(flat.device)]
            self._values[layer][self._current, place.columns] = kept.float().cpu()

        return take


def _distinct(size: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` different integers below `size`, uniformly, without a permutation of all of them."""
    chosen = torch.randint(size, (count,), generator=generator).unique()
    while len(chosen) < count:
        more = torch.randint(size, (count - len(chosen),), generator=generator)
        chosen = torch.cat([chosen, more]).unique()
    return chosen
