"""Exactly the named layers: freezing, and the proof that it was done.

Three sets must be the same: the parameters of the named layers, those that require gradients, and
those that the optimizer holds. After the first step that can move anything, the parameters that
differ from the start must be those with a gradient, and none outside the named layers.

Limits: whether a parameter changed is judged by a checksum of its bits, which keeps no second
copy of the model and misses changes that cancel in the sum of every row of a matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from layerpick.training.engine.policies import FIRST_LAYER_STREAM, FULL_STREAM
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import LoadedModel
from layerpick.training.models.sharding import local

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class FreezingError(LayerpickError):
    """Something other than the named layers would be, or was, trained."""


@dataclass(frozen=True)
class Boost:
    """Layers that train at a multiple of everything else's rate."""

    layers: tuple[int, ...]
    """Ascending."""
    factor: float
    """Above 0."""


@dataclass(frozen=True)
class Trainable:
    """What a run trains."""

    layers: tuple[int, ...] | None
    """Decoder layers, ascending; None: every parameter of the model."""
    network: nn.Module
    names: tuple[str, ...]
    """Of the parameters, in the model."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Multiples of the learning rate, by name, of those that do not train at the rate itself."""

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """By their names; float32. Sharding (FSDP2) puts others in place of those there were."""
        found = dict(self.network.named_parameters())
        return {name: found[name] for name in self.names}

    @property
    def count(self) -> int:
        """Numbers trained."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def stream(self) -> int:
        """The stream of sampling noise: that of the same policy in a sweep."""
        return FULL_STREAM if self.layers is None else FIRST_LAYER_STREAM + self.layers[0]


def freeze(
    model: LoadedModel, layers: Sequence[int] | None, boost: Boost | None = None
) -> Trainable:
    """Let exactly the named layers require gradients, in float32; all else keeps its format.

    Raises FreezingError when a parameter of theirs is also used elsewhere in the model.
    """
    network = model.model
    network.requires_grad_(False)
    names = dict(network.named_parameters())
    if layers is not None:
        prefixes = tuple(model.layers.prefix(layer) for layer in layers)
        names = {name: value for name, value in names.items() if name.startswith(prefixes)}
    for parameter in names.values():
        # bfloat16 swallows small Adam updates.
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    boosted = tuple(model.layers.prefix(layer) for layer in boost.layers) if boost else ()
    factors = {name: boost.factor for name in names if boost and name.startswith(boosted)}
    chosen = None if layers is None else tuple(sorted(layers))
    trainable = Trainable(chosen, network, tuple(names), factors)
    check_gradients(network, trainable)
    return trainable


def thaw(model: LoadedModel, trainable: Trainable, dtype: torch.dtype) -> None:
    """Undo `freeze`: nothing requires gradients, and everything has one format again."""
    model.model.requires_grad_(False)
    for parameter in trainable.parameters.values():
        if parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


@contextmanager
def no_graph_below(network: Any) -> Iterator[None]:
    """While open, gradient checkpointing does not bring back the graph below what is trained.

    Whenever transformers turns it on, it lets the output of the embeddings require gradients, for
    the sake of adapters; every layer would then be run twice and differentiated.
    """
    network.enable_input_require_grads = lambda: None
    try:
        yield
    finally:
        del network.enable_input_require_grads
        network.gradient_checkpointing_disable()


def check_gradients(network: nn.Module, trainable: Trainable) -> None:
    """Raise FreezingError unless exactly the trainable parameters require gradients."""
    # A layer's parameter must not go by a second name, in another layer or in the head.
    named = network.named_parameters(remove_duplicate=trainable.layers is None)
    found = (name for name, parameter in named if parameter.requires_grad)
    _compare("require gradients", trainable.parameters, found)


def check_optimizer(
    network: nn.Module, trainable: Trainable, optimizer: torch.optim.Optimizer
) -> None:
    """Raise FreezingError unless the optimizer holds exactly the trainable parameters."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    _compare(
        "are held by the optimizer",
        trainable.parameters,
        (names.get(id(parameter), "a tensor that is not the model's") for parameter in held),
    )


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimizer's state."""
    return sum(
        value.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )


class ChangeCheck:
    """Compares what a step changed with what it should have changed."""

    def __init__(self, network: nn.Module, trainable: Trainable):
        """Remember the model as it is now."""
        self._network = network
        self._trainable = trainable
        self._before = self._checksums()
        self._moving: list[str] = []

    def before_step(self, learning_rate: float) -> bool:
        """Note which parameters the coming step can move; whether there are any."""
        self._moving = [
            name
            for name, parameter in self._trainable.parameters.items()
            if parameter.grad is not None
            and _moves(local(parameter.detach()), local(parameter.grad), learning_rate)
        ]
        return bool(self._moving)

    def after_step(self) -> None:
        """Raise FreezingError unless all that the step can move has changed, and nothing frozen."""
        after = self._checksums()
        changed = [name for name, checksum in after.items() if checksum != self._before[name]]
        # Weight decay moves trained parameters without a gradient, and rounding may let others go.
        idle = set(self._trainable.parameters) - set(self._moving)
        _compare("changed in a step", self._moving, (n for n in changed if n not in idle))

    def _checksums(self) -> dict[str, int]:
        sums = {name: _checksum(local(p.detach())) for name, p in self._network.named_parameters()}
        return dict(zip(sums, torch.stack([s.cpu() for s in sums.values()]).tolist(), strict=True))


def _moves(values: Tensor, gradient: Tensor, rate: float) -> bool:
    """Whether a step of Adam, of about the rate, is more than rounding for any number with one."""
    can = values.abs().float() * torch.finfo(values.dtype).eps < rate
    return bool((can & (gradient != 0)).any())


def _checksum(values: Tensor) -> Tensor:
    """Sum of the bit patterns, each row by a weight of its own, modulo 2⁶⁴: a scalar, int64.

    Adam's first step moves every number as far, up or down: without weights, such steps cancel.
    """
    bits = values.view(_INTEGERS[values.element_size()])
    rows = bits.flatten(1).sum(dim=1, dtype=torch.int64) if bits.ndim > 1 else bits.reshape(-1)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (len(rows),), generator=generator)
    return (rows * weights.to(rows.device)).sum()


def _compare(what: str, expected: Iterable[str], found: Iterable[str]) -> None:
    wanted, present = set(expected), set(found)
    if not wanted:
        raise FreezingError("There is no parameter to train: the named layers have none.")
    if wanted != present:
        raise FreezingError(
            f"The parameters that {what} are not exactly those of the layers to train: "
            f"{_listed(present - wanted)} should not, and {_listed(wanted - present)} should."
        )


def _listed(names: set[str]) -> str:
    some = sorted(names)[:3]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(some)}{more}" if names else "none"
