"""Tensors of which each process has a part (FSDP2), beside ordinary ones.

PyTorch's own module for them is loaded on first use: it takes half a second, and only training
asks.
"""

from __future__ import annotations

from torch import Tensor


def sharded(value: Tensor) -> bool:
    """Whether each process has only a part of it."""
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def local(value: Tensor) -> Tensor:
    """The part of a sharded tensor that is in this process; another tensor itself."""
    return value.to_local() if sharded(value) else value  # type: ignore[attr-defined]


def whole(value: Tensor) -> Tensor:
    """All of a sharded tensor, for which all processes must ask; another tensor itself."""
    return value.full_tensor() if sharded(value) else value  # type: ignore[attr-defined]


def alike(value: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, sharded as another of its shape is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(model, DTensor):
        return value
    return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)
