"""What a multiplexed step costs: this tree against an earlier commit, in one run.

    .venv/bin/python tests/benchmarks/engine_cost.py [MODEL] [--against 29b85e2] [--threads 2]
        [--prompts 8] [--group-size 8] [--max-new-tokens 6] [--layers N] [--steps 1] [--repeats 1]
        [--dtype auto] [--only now|before]

MODEL is a .gguf file or a folder; the built-in math model unless given. The earlier commit is
checked out into a temporary worktree and removed again. The two take turns, `--repeats` times,
each in a process of its own, with the number format that `--dtype auto` gives each; single-digit
sums with two worked examples, every layer a policy (or N spread evenly). A step of one layer warms
up. Prints seconds of a step, their parts, the most memory that the process held, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ROOMS = ("calibration", "probes", "selector", "training")
SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"
TEMPLATE = "3 + 5 = 8\n7 - 2 = 5\n{expression} ="
RATE = 1e-5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=str(ROOT / "training/reference/math"))
    parser.add_argument("--against", default="29b85e2")
    parser.add_argument("--only", choices=["now", "before"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=6)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tree", choices=["now", "before"], help=argparse.SUPPRESS)
    return parser.parse_args()


def imported(before: bool) -> tuple[Any, ...]:
    """What either tree calls the same things, and how it is told to train."""
    if before:
        from layerpick.training.learner import LearningSettings  # type: ignore
        from layerpick.training.loading import load_model  # type: ignore
        from layerpick.training.multiplex import SingleLayerPolicies  # type: ignore
        from layerpick.training.multiplexed_trainer import (  # type: ignore
            Spent as StageSeconds,
        )
        from layerpick.training.multiplexed_trainer import (
            TrainingSettings,
            train,
        )
        from layerpick.training.sampling import SamplingSettings  # type: ignore
        from layerpick.training.tasks.base import TaskSettings  # type: ignore

        def told(*settings: int) -> tuple[Any, ...]:
            return (TrainingSettings(LearningSettings(RATE), *settings),)
    else:
        from layerpick.training.engine.loop import StageSeconds, train
        from layerpick.training.engine.stacked import SingleLayerPolicies
        from layerpick.training.episodes.play import SamplingSettings
        from layerpick.training.models.loading import load_model
        from layerpick.training.settings import RlSettings
        from layerpick.training.tasks.settings import TaskSettings

        def told(*settings: int) -> tuple[Any, ...]:
            return RlSettings(*settings), RATE

    return (
        load_model,
        TaskSettings,
        SamplingSettings,
        SingleLayerPolicies,
        StageSeconds,
        train,
        told,
    )


def one(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure the tree that this process imports."""
    import torch

    from layerpick.training.algorithms.table import make_algorithm
    from layerpick.training.tasks.table import make_task

    load_model, task_settings, sampling_settings, policies_of, spent_of, train, told = imported(
        chosen.tree == "before"
    )
    torch.set_num_threads(chosen.threads)
    model = load_model(chosen.model, dtype=chosen.dtype)
    task = make_task("math", task_settings(dataset=SUMS, template=TEMPLATE, stop=("\n",)))
    sampling = sampling_settings(chosen.max_new_tokens, stop=("\n",), rows=1 << 16)
    count = len(model.layers)
    wanted = min(chosen.layers or count, count)
    layers = [round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)]

    def run(layers: list[int], steps: int) -> tuple[Any, Any]:
        spent = spent_of()
        runs = train(
            policies_of(model, layers),
            model,
            task,
            make_algorithm("grpo"),
            sampling,
            *told(steps, chosen.prompts, chosen.group_size),
            seed=0,
            spent=spent,
        )
        return runs, spent

    run(layers[:1], 1)
    start, used = time.perf_counter(), time.process_time()
    runs, spent = run(layers, chosen.steps)
    return {
        "seconds": (time.perf_counter() - start) / chosen.steps,
        "processor": (time.process_time() - used) / chosen.steps,
        "sampling": spent.sampling / chosen.steps,
        "update": spent.update / chosen.steps,
        "tokens": sum(each.tokens for each in runs) / chosen.steps,
        "bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "dtype": str(model.dtype),
        "policies": len(layers),
    }


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder to import an earlier commit's four rooms from as `layerpick`."""
    with tempfile.TemporaryDirectory() as folder:
        tree, package = Path(folder) / "tree", Path(folder) / "import" / "layerpick"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run(
            [*git, "add", "--detach", str(tree), commit], check=True, capture_output=True
        )
        try:
            package.mkdir(parents=True)
            (package / "__init__.py").touch()
            for room in ROOMS:
                (package / room).symlink_to(tree / room)
            yield package.parent
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def measured(tree: str, path: Path, threads: int) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, *sys.argv[1:], "--tree", tree]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    chosen = arguments()
    if chosen.tree:
        print(json.dumps(one(chosen)))
        return
    found: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
    with checked_out(chosen.against) as before:
        for _ in range(chosen.repeats):
            for tree, path in (("before", before), ("now", ROOT / "src")):
                if chosen.only in (None, tree):
                    found[tree].append(measured(tree, path, chosen.threads))
    ratios: dict[str, list[float]] = {"seconds": [], "processor": []}
    for tree, runs in found.items():
        if not runs:
            continue
        parts = {
            name: statistics.median(run[name] for run in runs)
            for name in ("seconds", "processor", "sampling", "update", "tokens")
        }
        for name, values in ratios.items():
            values.append(parts[name])
        print(
            f"{tree:6} {parts['seconds']:8.3f} s a step of {runs[0]['policies']} policies "
            f"(sampling {parts['sampling']:.3f}, update {parts['update']:.3f}; of processor time "
            f"{parts['processor']:.3f}), "
            f"{parts['tokens']:.0f} tokens, {runs[0]['dtype'].removeprefix('torch.')}, "
            f"most memory {max(run['bytes'] for run in runs) / 1e9:.2f} GB"
        )
    if chosen.only is None:
        by_clock, by_processor = (before / now for before, now in ratios.values())
        print(
            f"{by_clock:.2f} times as fast ({by_processor:.2f} by processor time, which other work "
            f"disturbs less), {chosen.threads} threads"
        )


if __name__ == "__main__":
    main()
