"""What the strategies gain: single layers, several together, a boost, a vote, and everything.

    python tests/benchmarks/strategies.py --by-sweep calibration/data/sweeps/reference-math

prints a Markdown table. Runs lie in --out and are not made again, so it can be stopped and gone on
with; --only STRATEGY makes the runs of one of them and prints nothing. What follows `--` goes to
`layerpick train` as it is: a model, a task, steps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

from layerpick.calibration.sweeps.measured import read_sweep
from layerpick.calibration.sweeps.paired import Measured, paired_difference, share
from layerpick.calibration.sweeps.store import read_folder, sweep_folders
from layerpick.training.runs.folder import RunFolder

LAYERPICK = [sys.executable, "-c", "from layerpick.selector.app.entry import main; main()"]


def strategies(sweep: Path, most: int, middle: int, factor: float) -> dict[str, list[str]]:
    """Options of `layerpick train` by name."""
    reading = read_sweep(read_folder(sweep_folders(sweep)[0]))
    best = sorted(reading.layers, key=lambda layer: -reading.layers[layer].score.mean)[:most]
    together = ",".join(map(str, best))
    return {
        "full": ["--layer", "all"],
        **{f"layer {layer}": ["--layer", str(layer)] for layer in best},
        f"best {most} together ({together})": ["--layer", together],
        f"middle {middle}": ["--layer", f"middle:{middle}"],
        f"boost of {together}, ×{factor:g}": ["--boost", together, "--boost-factor", f"{factor:g}"],
    }


def place(out: Path, name: str, seed: int) -> Path:
    """Where a run lies."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return out / f"{plain}-seed{seed}"


def make(out: Path, name: str, options: list[str], seed: int, rest: list[str]) -> None:
    """Train, unless it has been done."""
    folder = place(out, name, seed)
    if RunFolder(folder).result() is None:
        command = [*LAYERPICK, "train", *rest, *options, "--seed", str(seed), "--out", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def vote(out: Path, names: list[str], seed: int, rest: list[str]) -> dict:
    """`layerpick vote` on single-layer runs of one seed, kept beside them."""
    kept = out / f"vote-seed{seed}.json"
    if not kept.is_file():
        runs = [str(place(out, name, seed)) for name in names]
        done = subprocess.run(
            [*LAYERPICK, "vote", *runs, *_task(rest), "--json"], check=True, capture_output=True
        )
        kept.write_bytes(done.stdout)
    return json.loads(kept.read_text())


def _task(rest: list[str]) -> list[str]:
    """The options of `train` that `vote` has too."""
    shared = ("--task", "--dataset", "--template", "--stop", "--reward")
    pairs = ((option, value) for option, value in pairwise(rest) if option in shared)
    return [word for pair in pairs for word in pair]


def main() -> None:
    """Make the runs and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--by-sweep", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/strategies"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=3)
    parser.add_argument("--middle", type=int, default=3)
    parser.add_argument("--factor", type=float, default=10.0)
    parser.add_argument("--only", help="a strategy's name, or the beginning of it")
    parser.add_argument("rest", nargs="*", help="of `layerpick train`")
    chosen = parser.parse_args()
    found = strategies(chosen.by_sweep, chosen.most, chosen.middle, chosen.factor)
    for seed in range(chosen.seeds):
        for name, options in found.items():
            if name.startswith(chosen.only or ""):
                make(chosen.out, name, options, seed, chosen.rest)
    if chosen.only is None:
        print_table(chosen.out, found, chosen.seeds, chosen.rest)


def print_table(out: Path, found: dict[str, list[str]], seeds: int, rest: list[str]) -> None:
    """One row per strategy; ± is a standard error over prompts and seeds."""
    results = {n: [RunFolder(place(out, n, s)).result() for s in range(seeds)] for n in found}
    singles = [name for name in found if name.startswith("layer ")]
    base = _measured([run.base.by_prompt for run in results["full"]])
    full = _measured([run.trained.by_prompt for run in results["full"]])
    whole = np.mean([run.cost.update_seconds for run in results["full"]])
    print("| what trains | parameters | update time | score | share of the full gain |")
    print("|---|---|---|---|---|")
    print(f"| nothing (base) | | | {_score(base)} | 0 |")
    for name, runs in results.items():
        own = _measured([run.trained.by_prompt for run in runs])
        parameters = runs[0].cost.trainable_parameters / runs[0].full_parameters
        time = np.mean([run.cost.update_seconds for run in runs]) / whole
        cost = f"{parameters:.0%} | {time:.0%}"
        print(f"| {name} | {cost} | {_score(own)} | {_share(own, base, full)} |")
    votes = [vote(out, singles, seed, rest) for seed in range(seeds)]
    own = _measured([v["score"]["by_prompt"] for v in votes])
    listed = ", ".join(name.removeprefix("layer ") for name in singles)
    parts = sum(results[n][0].cost.trainable_parameters for n in singles)
    parameters = parts / results["full"][0].full_parameters
    time = np.sum([np.mean([r.cost.update_seconds for r in results[n]]) for n in singles]) / whole
    agreement = np.mean([v["agreement"] for v in votes])
    print(
        f"| vote of layers {listed} (agreement {agreement:.0%}) | {parameters:.0%} | {time:.0%} | "
        f"{_score(own)} | {_share(own, base, full)} |"
    )


def _measured(by_prompt: list) -> Measured:
    scores = np.array(by_prompt)
    return Measured(scores, tuple(range(len(scores))), (), scores.mean(axis=1))


def _score(measured: Measured) -> str:
    return f"{measured.score.mean:.3f} ± {measured.score.error or 0:.3f}"


def _share(own: Measured, base: Measured, full: Measured) -> str:
    if paired_difference(full, base).mean <= 0:
        return "undefined"
    found = share(own, base, full)
    return f"{found.mean:.2f} ± {found.error or 0:.2f}"


if __name__ == "__main__":
    main()
