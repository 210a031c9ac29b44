"""Processes that train one model together, as `accelerate launch` or `torchrun` starts them.

A process by itself is a group of one, for which nothing here does anything. Which of them samples
what follows from its rank, and so does the noise: together they do what one would have done.

Limits: the folder of a run must be seen by all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from layerpick.training.errors import LayerpickError

T = TypeVar("T")
PATIENCE = timedelta(hours=12)
"""The first process may measure a suggestion while the others wait; a dead one ends all at once."""
_FAILED = "layerpick/failed"


@dataclass(frozen=True)
class Processes:
    """The group, seen from one of its members."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` things are this process's: neighbours, as evenly as it goes."""
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def gather(self, own: Sequence[T]) -> list[T]:
        """Everybody's values, in order of rank; all must ask."""
        if self.count == 1:
            return list(own)
        import torch.distributed as dist

        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, list(own))
        return [value for part in parts for value in part]

    def wait(self) -> None:
        """Go on when all have come here."""
        self.gather([None])

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process runs the block, then the others do, who find what it has left."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    @contextmanager
    def in_step(self, network: Any) -> Iterator[None]:
        """Let processes call a sharded network (FSDP2) a different number of times.

        Each call needs all of them, so those that are done take part until the last one is.
        """
        from torch.distributed.fsdp import FSDPModule

        if self.count == 1 or not isinstance(network, FSDPModule):
            yield
            return
        module: Any = network
        hook = module.register_forward_pre_hook(lambda *_: _anyone(True, module) and None)
        try:
            yield
        finally:
            hook.remove()
        while _anyone(False, network):
            _call(network)


ALONE = Processes()


def join(device: str) -> Processes:
    """Join the group that the launcher's environment names, if any.

    Raises LayerpickError when this process cannot have the device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    import torch
    from accelerate import PartialState

    cpu = device == "cpu" or not torch.cuda.is_available()
    if not cpu and device not in ("auto", "cuda"):
        raise LayerpickError(
            f"--device {device}: each process takes a GPU of its own; leave it out."
        )
    # Every process scores the model before it is sharded, so every process loads its weights.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    PartialState(cpu=cpu, timeout=PATIENCE)
    return processes()


def processes() -> Processes:
    """The group that this process has joined."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return Processes()
    return Processes(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """Leave the group when the work is done."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def first_to_fail() -> bool:
    """Whether this process is the one that says why all of them end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    store = _store()
    if store is None:  # before the group exists, all fail alike
        return os.environ.get("RANK", "0") == "0"
    return bool(store.add(_FAILED, 1) == 1)


def another_failed() -> bool:
    """Whether what fails here fails because another process has ended."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    store = _store()
    return store is not None and bool(store.add(_FAILED, 0))


def _store() -> Any:
    import torch.distributed as dist

    if not dist.is_initialized():
        return None
    return dist.distributed_c10d._get_default_store()


def _anyone(busy: bool, network: Any) -> bool:
    """Whether any process still calls the network; all must ask."""
    import torch
    import torch.distributed as dist

    flag = torch.tensor(int(busy), device=network.get_input_embeddings().weight.device)
    dist.all_reduce(flag)
    return bool(flag)


def _call(network: Any) -> None:
    import torch

    device = network.get_input_embeddings().weight.device
    with torch.no_grad():
        network(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device))
