"""The policies that one training pass trains: which parameters are theirs, and how they act.

The frozen model keeps its number format. What is trained is held in float32, because bfloat16
swallows small Adam updates, and cast when it is used.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from layerpick.training.episodes.decoding import Decoder
from layerpick.training.models.loading import LoadedModel

BASE_STREAM, FULL_STREAM, FIRST_LAYER_STREAM = 0, 1, 2
"""Streams of sampling noise: the untrained model, the full policy, layer k at 2 + k."""


class TrainedCopy:
    """A module with float32 parameters of its own, cast to the original's format when used."""

    def __init__(self, original: nn.Module):
        self.module = copy.deepcopy(original).requires_grad_(False)
        self._casts: dict[str, torch.dtype] = {}
        self.trained: dict[str, nn.Parameter] = {}
        """By the original's names; float32."""
        for name, parameter in self.module.named_parameters():
            if parameter.dtype == torch.float32:
                parameter.requires_grad_(True)
                self.trained[name] = parameter
            else:
                self.trained[name] = nn.Parameter(parameter.detach().float())
                self._casts[name] = parameter.dtype
                parameter.data = parameter.new_empty(0)  # never read again

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with the trained parameters."""
        if not self._casts:
            return self.module(*args, **kwargs)
        cast = {name: self.trained[name].to(dtype) for name, dtype in self._casts.items()}
        return functional_call(self.module, cast, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the module's: its config, its embeddings."""
        if name == "module":
            raise AttributeError(name)
        return getattr(self.module, name)


class Policies(ABC):
    """Policies that are trained in one pass, in a fixed order."""

    model: LoadedModel
    """What is called to act or to learn, within `stacked`."""
    streams: tuple[int, ...]
    """Of each policy, its stream of sampling noise."""
    copies: tuple[TrainedCopy, ...]
    """Of each policy, what is trained."""

    @abstractmethod
    def stacked(self, owners: Sequence[int]) -> AbstractContextManager[None]:
        """While open, the model's rows belong to these policies (indices that never decrease)."""

    @abstractmethod
    def decoder(self, owners: Sequence[int]) -> Decoder:
        """A decoder whose rows belong to these policies (indices that never decrease)."""

    def __len__(self) -> int:
        return len(self.copies)

    def parameters(self, policy: int) -> list[nn.Parameter]:
        """What a policy trains."""
        return list(self.copies[policy].trained.values())

    def finite(self, policy: int) -> bool:
        """Whether all of a policy's parameters are finite numbers."""
        return all(bool(torch.isfinite(p).all()) for p in self.parameters(policy))


class FullPolicy(Policies):
    """One policy that trains every parameter of the model."""

    def __init__(self, model: LoadedModel):
        trained = TrainedCopy(model.model)
        self.model = replace(model, model=trained)
        self.streams = (FULL_STREAM,)
        self.copies = (trained,)

    def stacked(self, owners: Sequence[int]) -> AbstractContextManager[None]:  # noqa: ARG002
        """All rows are the one policy's."""
        return nullcontext()

    def decoder(self, owners: Sequence[int]) -> Decoder:
        """An ordinary decoder."""
        return Decoder(self.model.model, self.model.tokenizer.pad_token_id, len(owners))
