"""The logit lens: what the model would predict if it stopped after a layer.

The hidden states of all layers are put where the final norm expects the last one's, so the model's
own ending (norm, head, caps, scales) reads them all in the pass that made them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerpick.probes.reading.token_losses import entropy
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import LoadedModel


class LogitLens:
    """Mean entropy of the lens before and after each layer, at random written tokens."""

    def __init__(self, model: LoadedModel, per_pass: int, seed: int):
        self._norm = final_norm(model)
        self._depths = len(model.layers) + 1
        self._per_pass = per_pass
        self._generator = torch.Generator().manual_seed(seed)
        self._streams: list[Tensor] = []
        self._places: tuple[Tensor, Tensor]
        self._entropies: list[Tensor] = []

    def take(self, layer: int, given: Tensor, made: Tensor) -> None:
        """Keep a layer's output, and the first layer's input, at the chosen tokens."""
        if layer == 0:
            self._streams = [given[self._places]]
        self._streams.append(made[self._places])

    @contextmanager
    def reading(self, written: Tensor) -> Iterator[None]:
        """While open, the final norm reads what was kept; `written` (rows, T), bool."""
        self._places = self._choose(written)
        if self._norm is None:
            yield
            return
        handle = self._norm.register_forward_pre_hook(self._replace)
        try:
            yield
        finally:
            handle.remove()

    def places(self) -> Tensor:
        """(N,), int64: where the pass that is read has the logits of the lens."""
        rows, _ = self._places
        count = 0 if self._norm is None else self._depths * len(rows)
        return torch.arange(count, device=rows.device)

    def finish(self, logits: Tensor) -> None:
        """Take the logits (N, V) at these places."""
        if self._norm is None:
            return
        entropies = entropy(logits, 1.0)
        self._entropies.append(entropies.reshape(len(self._streams), -1).cpu())

    def features(self) -> dict[str, np.ndarray]:
        """Raises LayerpickError when the model has no final norm to read through."""
        if self._norm is None:
            raise LayerpickError("no module beside the layers reads the last layer's output")
        means = torch.cat(self._entropies, dim=1).double().mean(dim=1).numpy()
        return {"lens_entropy": means[1:], "lens_entropy_drop": means[:-1] - means[1:]}

    def _choose(self, written: Tensor) -> tuple[Tensor, Tensor]:
        places = written.cpu().nonzero()
        order = torch.randperm(len(places), generator=self._generator)
        rows, columns = places[order[: self._per_pass]].to(written.device).T
        return rows, columns

    def _replace(self, _: nn.Module, args: tuple) -> tuple:
        # Some families view the result by the batch's length, so that has to stay.
        length, width = args[0].shape[1:]
        kept = torch.cat(self._streams)
        padding = kept.new_zeros(-len(kept) % length, width)
        return (torch.cat([kept, padding]).reshape(-1, length, width), *args[1:])


@torch.no_grad()
def final_norm(model: LoadedModel) -> nn.Module | None:
    """The module that reads the last layer's output; None if nothing reads it as it is."""
    made: list[Tensor] = []
    readers: list[nn.Module] = []

    def remember(_: nn.Module, __: tuple, output: Any) -> None:
        made.append(output if isinstance(output, Tensor) else output[0])

    def compare(module: nn.Module, args: tuple) -> None:
        if made and args and args[0] is made[-1]:
            readers.append(module)

    inside = {id(part) for layer in model.layers for part in layer.modules()}
    handles = [model.layers[len(model.layers) - 1].register_forward_hook(remember)]
    handles += [
        module.register_forward_pre_hook(compare)
        for module in model.model.modules()
        if id(module) not in inside
    ]
    try:
        one = torch.ones(1, 1, dtype=torch.long, device=model.device)
        model.model(input_ids=one, attention_mask=one)
    finally:
        for handle in handles:
            handle.remove()
    return readers[0] if readers else None
