"""The reference policy of a KL penalty, without a second copy of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


class ReferencePolicy:
    """The model as it was before training: its original weights, put back for a pass."""

    def __init__(self, network: nn.Module, trained: Mapping[str, nn.Parameter]):
        self._network = network
        self._trained = list(trained.values())
        self._originals = [parameter.detach().clone() for parameter in self._trained]

    def __call__(self, **inputs: Any) -> Any:
        """Call the model as it was."""
        self._swap()
        try:
            return self._network(**inputs)
        finally:
            self._swap()

    def _swap(self) -> None:
        for index, parameter in enumerate(self._trained):
            parameter.data, self._originals[index] = self._originals[index], parameter.data
