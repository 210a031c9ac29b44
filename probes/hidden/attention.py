"""Entropy of attention, reduced as each layer hands out its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerpick.training.errors import LayerpickError
from layerpick.training.models.layers import DecoderLayers


class AttentionEntropy:
    """Mean entropy of each layer's attention at written tokens, in nats.

    Attention is whatever module inside a layer returns a tuple with a tensor of shape
    (rows, heads, tokens, tokens) in it, as Hugging Face's do with eager attention.
    """

    def __init__(self, layers: DecoderLayers):
        self._layers = layers
        self._entropies: list[list[Tensor]] = [[] for _ in layers]

    @contextmanager
    def listening(self, written: Tensor) -> Iterator[None]:
        """Take the weights of passes made while open; `written` (rows, tokens), bool."""
        handles = [
            module.register_forward_hook(self._hook(layer, written))
            for layer, owner in enumerate(self._layers)
            for name, module in owner.named_modules()
            if name
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def features(self) -> dict[str, np.ndarray]:
        """Raises LayerpickError when some layer handed out no weights."""
        if not all(self._entropies):
            raise LayerpickError("the model's layers hand out no attention weights")
        means = [float(torch.cat(parts).double().mean()) for parts in self._entropies]
        return {"attention_entropy": np.array(means)}

    def _hook(self, layer: int, written: Tensor):  # type: ignore[no-untyped-def]
        tokens = written.shape[1]

        def take(_: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001
            for item in output if isinstance(output, tuple) else ():
                if isinstance(item, Tensor) and item.ndim == 4 and item.shape[-1] == tokens:
                    self._entropies[layer].append(_row_entropies(item, written))

        return take


def _row_entropies(weights: Tensor, written: Tensor) -> Tensor:
    """(rows,): mean over heads and written tokens of −Σ p ln p."""
    probabilities = weights.float()
    entropies = torch.special.entr(probabilities).sum(dim=-1).mean(dim=1)
    mask = written.to(entropies)
    return (entropies * mask).sum(dim=1) / mask.sum(dim=1)
