"""The policies that one training pass trains: which parameters are theirs, and how they act.

The frozen model keeps its number format. What is trained is held in float32, because bfloat16
swallows small Adam updates, and cast once per update.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from layerpick.training.episodes.decoding import Decoder
from layerpick.training.models.loading import LoadedModel

BASE_STREAM, FULL_STREAM, FIRST_LAYER_STREAM = 0, 1, 2
"""Streams of sampling noise: the untrained model, the full policy, layer k at 2 + k."""


class TrainedCopy:
    """A module with float32 parameters of its own, used in the original's number format.

    They are cast when they have changed since the last call, not at every call; a gradient that
    reaches the cast is added to the float32 parameter's. Change parameters in place, not through
    `.data`, which leaves no trace. Derivatives are `backward`'s: the float32 parameters are not
    in the graph of a module that has another format.
    """

    def __init__(self, original: nn.Module):
        self.module = copy.deepcopy(original).requires_grad_(True)
        self.trained: dict[str, nn.Parameter] = {}
        """By the original's names; float32."""
        self._casts: list[tuple[nn.Parameter, nn.Parameter]] = []
        for name, parameter in self.module.named_parameters():
            if parameter.dtype == torch.float32:
                self.trained[name] = parameter
            else:
                self.trained[name] = nn.Parameter(parameter.detach().float())
                self._casts.append((parameter, self.trained[name]))
                parameter.register_post_accumulate_grad_hook(self._hand_to(self.trained[name]))
        self._versions, self._taught = self._current(), False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with the trained parameters."""
        if self._stale():
            self._versions, self._taught = self._current(), False
            with torch.no_grad():
                for cast, parameter in self._casts:
                    cast.copy_(parameter)
        return self.module(*args, **kwargs)

    def _stale(self) -> bool:
        """Whether the casts differ from what they are of, as far as can be seen.

        A fused optimizer leaves no trace in versions, but its gradients are dropped after a step.
        """
        dropped = self._taught and all(trained.grad is None for _, trained in self._casts)
        return dropped or self._versions != self._current()

    def _hand_to(self, trained: nn.Parameter) -> Callable[[Tensor], None]:
        """Moves the gradient of a cast to the parameter that it was cast from."""

        def hand_over(cast: Tensor) -> None:
            assert cast.grad is not None
            gradient, cast.grad = cast.grad, None
            trained.grad = gradient.float() if trained.grad is None else trained.grad.add_(gradient)
            self._taught = True

        return hand_over

    def _current(self) -> list[int]:
        """How often each parameter has been changed."""
        return [parameter._version for _, parameter in self._casts]

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
