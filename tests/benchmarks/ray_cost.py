"""What Ray adds to a pass: many tiny ones on simulated workers, some of which die.

    .venv/bin/python tests/benchmarks/ray_cost.py [--passes 500] [--workers 8] [--deaths 0.05]

Two nodes on this machine (loopback) share the workers. A tiny pass does nothing, so that all the
time is Ray's and the driver's; with `--deaths` a pass first kills its worker with that chance, and
Ray starts it again on a new one. Needs layerpick[ray].
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback; read when Ray is imported
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112

from ray import cloudpickle
from ray.cluster_utils import Cluster

from layerpick.training.sweeps.ray_tasks import Call, Needs, RayTasks

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def tiny(number: int, deaths: float, *, on_step: Callable[[int], None]) -> int:
    """A pass that does nothing, or dies."""
    if random.random() < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    on_step(1)
    return number


def main() -> None:
    """Run them and print the seconds of one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--passes", type=int, default=500)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--deaths", type=float, default=0.05)
    chosen = parser.parse_args()
    node = {"object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0})
    for _ in range(2):
        cluster.add_node(**node, num_cpus=chosen.workers // 2)
    try:
        with RayTasks(cluster.address, Needs(gpus=0)) as tasks:
            for deaths in (0.0, chosen.deaths):
                for number in range(tasks.slots):  # starts the workers
                    tasks.submit(Call("first", tiny, (number, 0.0)))
                list(tasks.ended())
                start = time.perf_counter()
                for number in range(chosen.passes):
                    tasks.submit(Call(str(number), tiny, (number, deaths)))
                ended = list(tasks.ended())
                seconds = time.perf_counter() - start
                found = sorted(one.value for one in ended if one.failure is None)
                lost = chosen.passes - len(set(found))
                print(
                    f"{chosen.passes} passes, {deaths:.0%} deaths, {tasks.slots} workers: "
                    f"{seconds:.1f} s, {1000 * seconds / chosen.passes:.0f} ms a pass; "
                    f"{lost} lost, {len(found) - len(set(found))} twice"
                )
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
