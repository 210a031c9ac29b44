"""The policies that one training pass trains: which parameters are theirs, and how they act.

The frozen model keeps its number format. What is trained is held in float32, because bfloat16
swallows small Adam updates, and cast when used.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from layerpick.training.decoding import Decoder
from layerpick.training.layers import DecoderLayers
from layerpick.training.loading import LoadedModel

BASE_STREAM, FULL_STREAM, FIRST_LAYER_STREAM = 0, 1, 2
"""Streams of sampling noise: the untrained model, the full policy, layer k at 2 + k."""


class TrainedCopy(nn.Module):
    """A module's own float32 parameters, cast to the number format of the original when used."""

    def __init__(self, original: nn.Module):
        super().__init__()
        module = copy.deepcopy(original).requires_grad_(False)
        self._names = {name: name.replace(".", "/") for name, _ in module.named_parameters()}
        self._dtypes = {name: p.dtype for name, p in module.named_parameters()}
        self.trained = nn.ParameterDict(
            {
                self._names[name]: nn.Parameter(parameter.detach().float().clone())
                for name, parameter in module.named_parameters()
            }
        )
        # Kept out of PyTorch's list of children: its own weights are never used.
        object.__setattr__(self, "module", module.to("meta"))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with the trained parameters."""
        return functional_call(self.module, self.weights(), args, kwargs)

    def weights(self) -> dict[str, Tensor]:
        """The trained parameters by the original's names, in its number format."""
        return {
            name: self.trained[key].to(self._dtypes[name]) for name, key in self._names.items()
        }
