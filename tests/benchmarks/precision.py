"""Which features survive bfloat16: each probe in both number formats, on the same rollouts.

    .venv/bin/python tests/benchmarks/precision.py [MODEL …] [--task math] [--probes all]
        [--prompts 16] [--group-size 8] [--max-new-tokens N] [--dataset D --template T --stop S]

Prints, for each feature, the rank correlation over layers between float32 and bfloat16, the
smallest over the models, and the mean relative difference. Features that a shipped predictor reads
are marked; they must reach 0.95. MODEL is the built-in one of the task unless given.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from layerpick.calibration.predictors.design import make_design
from layerpick.calibration.predictors.levels import find_level
from layerpick.calibration.predictors.stored import available_predictors
from layerpick.probes.table import chosen_probes
from layerpick.selector.prepare import default_rate, prepare
from layerpick.selector.progress import Silent
from layerpick.selector.settings import ModelChoice, RolloutChoice, SamplingChoice
from layerpick.selector.suggestion.probing import run_probes, sample
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.tasks.settings import TaskSettings

ENOUGH = 0.95
"""Rank correlation that a feature in use must reach."""


@dataclass(frozen=True)
class Agreement:
    """One feature of one model, in both formats."""

    correlation: float
    difference: float
    """Mean |difference| over mean |value|."""


def features(
    model: str | None, dtype: str, rollouts: RolloutChoice, options: argparse.Namespace
) -> dict[tuple[str, str], np.ndarray]:
    """By probe and feature, (layers,)."""
    settings = TaskSettings(
        dataset=options.dataset,
        template=options.template and options.template.replace("\\n", "\n"),
        stop=tuple(stop.replace("\\n", "\n") for stop in options.stop),
    )
    sampling = SamplingChoice(max_new_tokens=options.max_new_tokens)
    prepared = prepare(ModelChoice(model, dtype=dtype), options.task, settings, sampling)
    algorithm = make_algorithm(prepared.task.default_algorithm)
    rate = default_rate(prepared)
    probe_input, _ = sample(prepared, algorithm, rollouts, rate, seed=0, reporter=Silent())
    results = run_probes(probe_input, chosen_probes(options.probes), Silent())
    for name, result in results.items():
        print(f"# {model or options.task} {dtype} {name}: {result.cost.seconds:.1f} s", flush=True)
    return {(p, name): v for p, result in results.items() for name, v in result.features.items()}


def agreements(model: str | None, options: argparse.Namespace) -> dict[tuple[str, str], Agreement]:
    """Both formats on rollouts that the model sampled in float32."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rollouts.safetensors"
        size = {"prompts": options.prompts, "group_size": options.group_size}
        exact = features(model, "float32", RolloutChoice(save=file, **size), options)
        rough = features(model, "bfloat16", RolloutChoice(reuse=file, **size), options)
    return {key: _agreement(exact[key], rough[key]) for key in exact.keys() & rough.keys()}


def _agreement(exact: np.ndarray, rough: np.ndarray) -> Agreement:
    if np.ptp(exact) == 0 or np.ptp(rough) == 0:
        return Agreement(1.0 if np.array_equal(exact, rough) else 0.0, 0.0)
    difference = float(np.abs(exact - rough).mean() / np.abs(exact).mean())
    return Agreement(float(spearmanr(exact, rough).statistic), difference)


def main() -> None:
    """Measure and print the table as Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*")
    parser.add_argument("--task", default="math")
    parser.add_argument("--probes", default="weights,hidden,gradient,one_step,off_policy")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--dataset")
    parser.add_argument("--template")
    parser.add_argument("--stop", action="append", default=[])
    options = parser.parse_args()
    found = [agreements(model, options) for model in options.models or [None]]
    used = {
        name
        for each in available_predictors().values()
        for name in make_design(
            [e.example() for e in each.examples], find_level(each.level)
        ).features
    }
    keys = sorted(set().union(*found), key=lambda key: (chosen_probes(key[0]), key[1]))
    print("| probe | feature | read by a predictor | rank correlation | relative difference |")
    print("|---|---|---|---|---|")
    for probe, name in keys:
        each = [model[probe, name] for model in found if (probe, name) in model]
        lowest = min(agreement.correlation for agreement in each)
        difference = max(agreement.difference for agreement in each)
        mark = "yes" if name in used else ""
        low = f"**{lowest:.3f}**" if name in used and lowest < ENOUGH else f"{lowest:.3f}"
        print(f"| {probe} | {name} | {mark} | {low} | {difference:.2g} |")


if __name__ == "__main__":
    main()
