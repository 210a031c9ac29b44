"""The reference policy of a KL penalty, without a second copy of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from layerpick.training.models.freezing import Trainable
from layerpick.training.models.sharding import alike, local, sharded


class ReferencePolicy:
    """The model as it was before training: its original weights, put back for a pass."""

    def __init__(self, network: nn.Module, trainable: Trainable):
        self._network = network
        self._trainable = trainable
        self._originals = {
            name: parameter.detach().clone() for name, parameter in trainable.parameters.items()
        }

    def __call__(self, **inputs: Any) -> Any:
        """Call the model as it was."""
        self._swap()
        try:
            return self._network(**inputs)
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._trainable.parameters.items():
            original = self._originals[name]
            if sharded(parameter):
                # Sharding remembers where the weights lie: they change places, not the tensors.
                weights = local(parameter)
                if not sharded(original):
                    original = alike(original, parameter)
                there = local(original)
                kept = weights.clone()
                weights.copy_(there)
                there.copy_(kept)
                self._originals[name] = original
            else:
                parameter.data, self._originals[name] = original, parameter.data
