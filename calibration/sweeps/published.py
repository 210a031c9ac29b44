"""The sweeps published with arXiv 2607.01232, shipped as the tables they were printed in.

Limits: Qwen only, single runs without standard errors (a repeat moves a contribution by
0.05–0.07), and for all but one model only the layers that the paper prints.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from layerpick.calibration.paths import PUBLISHED
from layerpick.calibration.sweeps.values import Score, Sweep

SOURCE = "published: arXiv 2607.01232"
_TASK_OF_DATASET = {
    "NuminaMath-CoT": "math",
    "MATH": "math",
    "Skywork-OR1": "math",
    "ALFWorld": "agentic",
}


@cache
def published_sweeps() -> tuple[Sweep, ...]:
    """All published sweeps: one with every layer, the others with three to five layers."""
    complete = _sweep(
        "Qwen/Qwen3-1.7B-Base",
        28,
        "grpo",
        "NuminaMath-CoT",
        [
            (row["setting"], row["layer"], float(row["math_avg"]))
            for row in _rows("qwen3-1.7b-base_grpo_numinamath.csv")
        ],
    )
    grouped: dict[tuple[str, int, str, str], list[tuple[str, str, float]]] = defaultdict(list)
    for row in _rows("selected_layers.csv"):
        key = (row["model"], int(row["num_layers"]), row["algorithm"], row["dataset"])
        grouped[key].append((row["setting"], row["layer"], float(row["score"])))
    return (complete, *(_sweep(*key, scores) for key, scores in grouped.items()))


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = (PUBLISHED / name).read_text("utf-8")
    yield from csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))


def _sweep(
    model: str,
    num_layers: int,
    algorithm: str,
    dataset: str,
    scores: list[tuple[str, str, float]],
) -> Sweep:
    named = {setting: Score(score) for setting, layer, score in scores if not layer}
    layers = {int(layer): Score(score) for _, layer, score in scores if layer}
    task = _TASK_OF_DATASET[dataset]
    base, full = named["base"], named["full"]
    gain = full.mean - base.mean
    shares = {layer: Score((score.mean - base.mean) / gain) for layer, score in layers.items()}
    return Sweep(model, num_layers, task, algorithm, dataset, base, full, layers, shares, SOURCE)


def find_sweep(model: str, task: str, algorithm: str) -> Sweep | None:
    """The published sweep of this very model, task and algorithm, if there is one."""
    matches = (
        sweep
        for sweep in published_sweeps()
        if (sweep.model, sweep.task, sweep.algorithm) == (model, task, algorithm)
    )
    return next(matches, None)
