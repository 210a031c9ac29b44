"""Calls on a Ray cluster: one task each, retried by Ray when its worker or its node dies.

`ray` is the local machine (or the cluster that RAY_ADDRESS names), `ray://HOST:PORT` a cluster's
client port, HOST:PORT or `auto` a cluster that this machine belongs to. A local instance listens
on the loopback interface only. Whoever may connect to a cluster may run code on it; Ray pickles
what travels.

Nothing here imports PyTorch, and Ray itself is imported only when a door is opened.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from layerpick.training.errors import LayerpickError, MissingExtraError

RETRIES = 3
"""How often Ray starts a task again whose worker or node has died."""
POLL_SECONDS = 0.5
CONNECT_SECONDS = 10
LOCAL_OBJECT_STORE = 200_000_000
"""Bytes; records are small, and a local worker reads the model's files where they are."""
FAILED = "failed"


@dataclass(frozen=True)
class Needs:
    """What one task takes of the node that runs it."""

    gpus: float | None = None
    """A share of a GPU is allowed; None: one where the cluster has any."""
    memory: int = 0
    """Bytes."""
    cpus: float = 1.0


@dataclass(frozen=True)
class Call:
    """A function that a worker imports and calls with these arguments and `on_step`."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    steps: int = 1
    """Steps that it will tell."""


@dataclass(frozen=True)
class Ended:
    """What came of a call."""

    call: Call
    value: Any = None
    failure: str | None = None


class RayTasks:
    """A door to a Ray cluster; closing it ends the tasks it has started, and nothing else."""

    def __init__(self, address: str, needs: Needs | None = None, *, fresh_workers: bool = False):
        """Connect, or start Ray on this machine.

        With `fresh_workers` every task on a GPU has a process of its own and sees that GPU only;
        otherwise workers are reused. Raises LayerpickError when Ray is missing or not to be
        reached.
        """
        if find_spec("ray") is None:
            raise MissingExtraError(f"--on {address}", "ray")
        self.local, self._ours = _connect(address)
        import ray

        self._ray = ray
        self.needs = _filled(needs or Needs(), ray.cluster_resources())
        self._fresh = fresh_workers
        self._calls: dict[Any, tuple[int, Call]] = {}
        self._number = self._told = self._finished = 0
        self._board = ray.remote(_Board).options(num_cpus=0, max_restarts=-1).remote()

    @property
    def slots(self) -> int:
        """How many tasks the cluster can run at a time, as it is now."""
        return max(1, sum(_slots(node, self.needs) for node in self._nodes()))

    def require(self, memory: int) -> None:
        """State the bytes that each further task takes, unless they have been chosen."""
        if not self.needs.memory:
            self.needs = Needs(self.needs.gpus, memory, self.needs.cpus)

    def check(self) -> str | None:
        """What is wrong if no node of the cluster can run a task."""
        if any(_slots(node, self.needs) for node in self._nodes()):
            return None
        return (
            f"No node of the Ray cluster has {self.needs.cpus:g} CPUs, {self.needs.gpus:g} GPUs "
            f"and {self.needs.memory / 1e9:.1f} GB of memory, which a task is said to need: Ray "
            f"waits for one (--gpus-per-pass and --memory-per-pass say less)."
        )

    def put(self, value: Any) -> Any:
        """Put a value into the cluster's object store; returns the reference that may travel."""
        return self._ray.put(value)

    def submit(self, call: Call) -> None:
        """Hand a call to Ray."""
        needs = self.needs
        options: dict[str, Any] = {
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "memory": needs.memory or None,
            "max_retries": RETRIES,
            "name": call.name,
        }
        if needs.gpus and not self._fresh:
            # A process that has begun with one GPU cannot be shown another: it chooses itself.
            options["runtime_env"] = {"env_vars": {_NO_MASK: "1"}}
        task = self._ray.remote(max_calls=1 if needs.gpus and self._fresh else 0)(_run)
        self._number += 1
        reference = task.options(**options).remote(
            call.function, call.arguments, self._number, self._board
        )
        self._calls[reference] = (self._number, call)

    def ended(self, tick: Callable[[int], None] = lambda _: None) -> Iterator[Ended]:
        """Calls as they end, until none is left; more may be submitted meanwhile.

        `tick` is told the steps that all tasks have done since it was told last.
        """
        told = time.monotonic()
        while self._calls:
            done, _ = self._ray.wait(list(self._calls), timeout=POLL_SECONDS)
            for reference in done:
                _, call = self._calls.pop(reference)
                self._finished += call.steps
                yield self._outcome(reference, call)
            if not self._calls or time.monotonic() - told > POLL_SECONDS:
                self._tell(tick)
                told = time.monotonic()

    def close(self) -> None:
        """End what is still running; disconnect if the connection was made here."""
        with suppress(self._ray.exceptions.RayError, ConnectionError):  # the cluster may be gone
            for reference in self._calls:
                self._ray.cancel(reference, force=True)
            self._ray.kill(self._board)
        self._calls.clear()
        if self._ours:
            self._ray.shutdown()

    def __enter__(self) -> RayTasks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _outcome(self, reference: Any, call: Call) -> Ended:
        try:
            status, value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Ended(call, failure=_in_words(error))
        return Ended(call, failure=value) if status == FAILED else Ended(call, value)

    def _tell(self, tick: Callable[[int], None]) -> None:
        running = {number for number, _ in self._calls.values()}
        told: dict[int, int] = {}
        if running:
            try:
                told = self._ray.get(self._board.read.remote(), timeout=POLL_SECONDS)
            except self._ray.exceptions.RayError:
                return  # the display waits; the work does not
        steps = self._finished + sum(done for number, done in told.items() if number in running)
        if steps > self._told:
            tick(steps - self._told)
            self._told = steps

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]


_NO_MASK = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


def assigned_device() -> str | None:
    """On a worker: the GPU that Ray has given to its task, as PyTorch names it; None without."""
    import ray

    ids = [str(number) for number in ray.get_gpu_ids()]
    if not ids:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    index = visible.split(",").index(ids[0]) if visible else int(ids[0])
    return f"cuda:{index}" if os.environ.get(_NO_MASK) else "cuda"


class _Board:
    """Where tasks write how far they are."""

    def __init__(self) -> None:
        self._steps: dict[int, int] = {}

    def write(self, number: int, steps: int) -> None:
        """The steps that a task has done."""
        self._steps[number] = steps

    def read(self) -> dict[int, int]:
        """The steps of all tasks."""
        return self._steps


def _run(
    function: Callable[..., Any], arguments: tuple[Any, ...], number: int, board: Any
) -> tuple[str, Any]:
    """On a worker: call a function; what it raises comes back as a sentence."""
    steps, told = 0, 0.0

    def on_step(count: int) -> None:
        nonlocal steps, told
        steps += count
        if time.monotonic() - told > POLL_SECONDS:
            told = time.monotonic()
            board.write.remote(number, steps)

    try:
        return "done", function(*arguments, on_step=on_step)
    except LayerpickError as error:
        return FAILED, str(error).rstrip(".")
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return FAILED, f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"


def _connect(address: str) -> tuple[bool, bool]:
    """Connect; whether Ray was started on this machine, and whether the connection is new."""
    where = None if address == "ray" else address
    local = where is None and not os.environ.get("RAY_ADDRESS")
    if local and "ray" not in sys.modules:
        # Read by Ray when it is imported: its servers then listen on 127.0.0.1.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False, False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if local:
        options |= {"include_dashboard": False, "object_store_memory": LOCAL_OBJECT_STORE}
    try:
        _knock(where or os.environ.get("RAY_ADDRESS") or "")
        # Without an address Ray would join whatever was started on this machine before.
        ray.init("local" if local else where, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise LayerpickError(
            f"The Ray cluster at {where or os.environ.get('RAY_ADDRESS') or 'this machine'} cannot "
            f"be reached ({reason}): check the address, or start it with `ray start --head`."
        ) from error
    return local, True


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("//")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _filled(needs: Needs, cluster: dict[str, float]) -> Needs:
    gpus = (1.0 if cluster.get("GPU") else 0.0) if needs.gpus is None else needs.gpus
    return Needs(gpus, needs.memory, needs.cpus)


def _slots(node: dict[str, float], needs: Needs) -> int:
    """Tasks that a node can run at a time."""
    wanted = {"CPU": needs.cpus, "GPU": needs.gpus or 0.0, "memory": needs.memory}
    return min(
        (int(node.get(what, 0.0) / amount) for what, amount in wanted.items() if amount), default=1
    )


def _in_words(error: Exception) -> str:
    """Ray's own failures: a worker or node that died too often, no memory, a cancelled task."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]} (tried {RETRIES + 1} times)"
