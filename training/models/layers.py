"""Find a model's decoder layers, whatever its family.

There is no list of model names: the decoder layers are the one `ModuleList` whose length is the
text config's number of hidden layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from layerpick.training.errors import LayerpickError


@dataclass(frozen=True)
class DecoderLayers:
    """The decoder layers of a model, in order from the input."""

    path: str
    """Module path of the list, e.g. `model.layers`."""
    modules: tuple[nn.Module, ...]

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.modules)

    def __getitem__(self, layer: int) -> nn.Module:
        return self.modules[layer]

    def depth(self, layer: int) -> float:
        """Relative depth in [0, 1]: 0 at the input, 1 at the last layer."""
        return layer / (len(self.modules) - 1) if len(self.modules) > 1 else 0.0

    @property
    def depths(self) -> np.ndarray:
        """(layers,), float64: the relative depth of each."""
        return np.array([self.depth(layer) for layer in range(len(self.modules))])

    def prefix(self, layer: int) -> str:
        """What the names of a layer's parameters begin with, e.g. `model.layers.3.`."""
        return f"{self.path}.{layer}."

    def parameter_count(self, layer: int) -> int:
        """Number of parameters of one layer."""
        return sum(parameter.numel() for parameter in self.modules[layer].parameters())


def find_decoder_layers(model: Any) -> DecoderLayers:
    """Return the decoder layers of a Hugging Face model.

    Raises LayerpickError when no or several lists fit, or when layers share parameters; the
    message says what was found.
    """
    config = model.config.get_text_config(decoder=True)
    count = getattr(config, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise LayerpickError(f"{type(config).__name__} does not state num_hidden_layers.")
    lists = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)
    }
    fitting = {name: module for name, module in lists.items() if len(module) == count}
    outermost = {
        name: module
        for name, module in fitting.items()
        if not any(name.startswith(f"{other}.") for other in fitting if other != name)
    }
    if len(outermost) != 1:
        found = ", ".join(f"{name} ({len(module)})" for name, module in lists.items()) or "none"
        raise LayerpickError(
            f"{type(model).__name__} should have one list of {count} decoder layers; "
            f"{len(outermost)} lists have that length (lists of modules found: {found})."
        )
    ((path, modules),) = outermost.items()
    _refuse_shared_parameters(path, modules)
    return DecoderLayers(path, tuple(modules))


def _refuse_shared_parameters(path: str, modules: nn.ModuleList) -> None:
    owner: dict[int, int] = {}
    for layer, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            first = owner.setdefault(id(parameter), layer)
            if first != layer:
                raise LayerpickError(
                    f"{path}.{layer}.{name} is the same parameter as one in layer {first}: layers "
                    f"that share parameters cannot be trained one at a time."
                )
