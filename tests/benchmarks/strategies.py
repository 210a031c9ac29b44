"""What the strategies gain, beside a measured sweep of the same model: base and full are its.

    python tests/benchmarks/strategies.py --by-sweep calibration/data/sweeps/reference-math

prints a Markdown table. Runs lie in --out and are not made again, so it can be stopped and gone on
with; --only STRATEGY makes the runs of one of them and prints nothing. The engine is this package's
own, as the sweep's was, but for the boost, which TRL alone can do. What follows `--` goes to
`layerpick train` as it is: a model, a task, steps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from layerpick.calibration.sweeps.measured import Reading, read_sweep
from layerpick.calibration.sweeps.paired import Measured, paired_difference, share
from layerpick.calibration.sweeps.store import read_folder, sweep_folders
from layerpick.calibration.sweeps.values import Score
from layerpick.training.runs.folder import RunFolder, RunResult

LAYERPICK = [sys.executable, "-c", "from layerpick.selector.app.entry import main; main()"]
OWN = ["--engine", "own"]


def best_layers(reading: Reading, most: int) -> list[int]:
    """Layers of a sweep by score, best first."""
    scores = {layer: measured.score.mean for layer, measured in reading.layers.items()}
    return sorted(scores, key=lambda layer: -scores[layer])[:most]


def strategies(best: list[int], middle: int, factor: float) -> dict[str, list[str]]:
    """Options of `layerpick train` by name."""
    together = ",".join(map(str, best))
    return {
        f"best {len(best)} together ({together})": ["--layer", together, *OWN],
        f"middle {middle}": ["--layer", f"middle:{middle}", *OWN],
        f"boost of {together}, ×{factor:g}": ["--boost", together, "--boost-factor", f"{factor:g}"],
        **{f"layer {layer}": ["--layer", str(layer), *OWN] for layer in best},
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
    shared = ("--dataset", "--template", "--stop", "--reward")
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
    reading = read_sweep(read_folder(sweep_folders(chosen.by_sweep)[0]))
    best = best_layers(reading, chosen.most)
    found = strategies(best, chosen.middle, chosen.factor)
    for seed in range(chosen.seeds):
        for name, options in found.items():
            if name.startswith(chosen.only or ""):
                make(chosen.out, name, options, seed, chosen.rest)
    if chosen.only is None:
        print_table(reading, chosen.out, found, chosen.seeds, chosen.rest)


def print_table(
    reading: Reading, out: Path, found: dict[str, list[str]], seeds: int, rest: list[str]
) -> None:
    """One row per strategy, over the seeds that are done; ± is over prompts and seeds."""
    base, full = reading.base, reading.full
    size = next(iter(_done(out, next(iter(found)), seeds).values())).full_parameters
    print("| what trains | seeds | parameters | score | gain | share of the full gain |")
    print("|---|---|---|---|---|---|")
    print(f"| nothing (base), of the sweep | {len(base.seeds)} | 0% | {_score(base.score)} | 0 | |")
    print(_row("everything, of the sweep", full, 1.0, reading))
    for layer in best_layers(reading, len(reading.layers)):
        own = reading.layers[layer]
        print(_row(f"layer {layer}, of the sweep", own, None, reading))
    singles = [name for name in found if name.startswith("layer ")]
    for name in found:
        runs = _done(out, name, seeds)
        if runs and name not in singles:
            cost = next(iter(runs.values())).cost.trainable_parameters / size
            own = _measured({seed: run.trained.by_prompt for seed, run in runs.items()})
            print(_row(name, own, cost, reading))
    voted = set.intersection(*(set(_done(out, name, seeds)) for name in singles))
    votes = {seed: vote(out, singles, seed, rest) for seed in sorted(voted)}
    if votes:
        agreement = np.mean([each["agreement"] for each in votes.values()])
        listed = ", ".join(name.removeprefix("layer ") for name in singles)
        name = f"vote of layers {listed} (agreement {agreement:.0%}, {len(singles)} × the tokens)"
        cost = next(iter(votes.values()))["stored_parameters"] / size
        own = _measured({seed: each["score"]["by_prompt"] for seed, each in votes.items()})
        print(_row(name, own, cost, reading))


def _done(out: Path, name: str, seeds: int) -> dict[int, RunResult]:
    """Results by seed, of the runs that are finished."""
    runs = {seed: RunFolder(place(out, name, seed)).result() for seed in range(seeds)}
    return {seed: run for seed, run in runs.items() if run is not None}


def _row(name: str, own: Measured, cost: float | None, reading: Reading) -> str:
    seeds = len(own.seeds)
    share_of_all = "" if cost is None else f"{cost:.0%}"
    gain = paired_difference(own, reading.base)
    cells = [name, seeds, share_of_all, _score(own.score), _score(gain, "+"), _share(own, reading)]
    return f"| {' | '.join(map(str, cells))} |"


def _measured(by_seed: dict[int, Sequence[float]]) -> Measured:
    scores = np.array(list(by_seed.values()))
    return Measured(scores, tuple(by_seed), (), scores.mean(axis=1))


def _score(found: Score, sign: str = "") -> str:
    return f"{found.mean:{sign}.3f} ± {found.error or 0:.3f}"


def _share(own: Measured, reading: Reading) -> str:
    if reading.refusal:
        return "undefined"
    found = share(own, reading.base, reading.full)
    return f"{found.mean:.2f} ± {found.error or 0:.2f}"


if __name__ == "__main__":
    main()
