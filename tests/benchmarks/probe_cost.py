"""What the probes cost on a built-in model, against the limits they were given.

    .venv/bin/python tests/benchmarks/probe_cost.py [--task math] [--repeats 3]

Backward: gradient and curvature together against the gradient alone, attribution beside them, on
the default rollouts; seconds are medians. Training: the off-policy probe on 1,024 samples. Whole:
`layerpick suggest --probes all --warmup-steps 5` in a process of its own. Processor seconds say
what a machine that does other work too would need if it were idle, on one core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from layerpick.probes.base import ProbeInput, ProbeSizes
from layerpick.probes.run import run_probe
from layerpick.probes.table import PROBES
from layerpick.selector.prepare import Prepared, default_rate, prepare
from layerpick.selector.settings import (
    TRAINING_SAMPLING,
    USUAL_GROUP_SIZE,
    USUAL_PROMPTS,
    ModelChoice,
    TaskSettings,
)
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.episodes.rollouts import sample_rollouts

COMMAND = [sys.executable, "-c", "from layerpick.selector.app.entry import main; main()"]
BACKWARD = ("gradient", "curvature", "attribution")
SAMPLES = 1024


@dataclass(frozen=True)
class Cost:
    """What something cost."""

    seconds: float
    processor: float
    memory: int
    """Most bytes held."""

    def show(self, name: str, limit: str = "") -> None:
        """Print a row of the table."""
        print(
            f"{name:<34} {self.seconds:8.2f} s {self.processor:8.2f} s {self.memory / 1e6:8.0f} MB"
            f"   {limit}"
        )


def make_probe_input(prepared: Prepared, prompts: int, group_size: int) -> ProbeInput:
    """Rollouts of a built-in model, and all that probes need beside them."""
    rollouts = sample_rollouts(
        prepared.model,
        prepared.task,
        prompts=prompts,
        group_size=group_size,
        sampling=prepared.sampling,
        seed=0,
    )
    return ProbeInput(
        prepared.model,
        rollouts,
        make_algorithm(prepared.task.default_algorithm),
        0,
        default_rate(prepared),
        ProbeSizes(training_trajectories=SAMPLES),
        prepared.task,
        prepared.sampling,
    )


def cost(name: str, probe_input: ProbeInput, repeats: int) -> Cost:
    """Median cost of a probe. Stops the script when the probe fails."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        result = run_probe(PROBES[name](), probe_input)
        if result.failure:
            sys.exit(f"{name}: {result.failure}")
        processor = time.process_time() - start
        found.append(Cost(result.cost.seconds, processor, result.cost.peak_bytes))
    return Cost(
        statistics.median(each.seconds for each in found),
        statistics.median(each.processor for each in found),
        max(each.memory for each in found),
    )


def whole(task: str) -> Cost:
    """`layerpick suggest` with every probe."""
    with tempfile.TemporaryDirectory() as out:
        options = ["--task", task, "--probes", "all", "--warmup-steps", "5", "--out", out]
        start = time.perf_counter()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*COMMAND, "suggest", *options], **quiet)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status != 0:
        sys.exit("layerpick suggest failed")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="math")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    prepared = prepare(ModelChoice(), chosen.task, TaskSettings(), TRAINING_SAMPLING)
    print(f"{'':<34} {'time':>10} {'processor':>10} {'peak':>11}")
    probe_input = make_probe_input(prepared, USUAL_PROMPTS, USUAL_GROUP_SIZE)
    backward = {name: cost(name, probe_input, chosen.repeats) for name in BACKWARD}
    for name, each in backward.items():
        each.show(name)
    alone = backward["gradient"].processor
    ratio = 1 + backward["curvature"].processor / alone
    verdict = "within 1.5" if ratio <= 1.5 else "MORE THAN 1.5"
    print(f"gradient + curvature: {ratio:.2f} × the gradient alone ({verdict}); ", end="")
    print(f"attribution: {backward['attribution'].processor / alone:.2f} × more")
    many = make_probe_input(prepared, SAMPLES // USUAL_GROUP_SIZE, USUAL_GROUP_SIZE)
    about = f"off_policy, {SAMPLES:,} samples, 5 steps"
    cost("off_policy", many, 1).show(about, "≤ 20 s on two idle cores")
    cost("warm_up", probe_input, 1).show("warm_up, 5 steps")
    whole(chosen.task).show("suggest --probes all, whole", "≤ 90 s on two idle cores")


if __name__ == "__main__":
    main()
