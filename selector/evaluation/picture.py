"""Pictures of an evaluation: predicted against measured, losses against cost, coverage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from layerpick.calibration.judging.evaluation import Evaluation, LevelAccuracy
from layerpick.calibration.predictors.intervals import COVERAGE
from layerpick.selector.suggestion.picture import BLUE, GREEN, GREY, save_picture


def draw_evaluation(found: Evaluation, folder: Path) -> list[Path]:
    """Write four PNGs, or those that the sweeps allow; returns their paths."""
    pictures: dict[str, Callable[[Any, Evaluation], None]] = {
        "predicted.png": _predicted,
        "regret.png": partial(_losses, metric="regret", words="mean regret of the pick"),
        "share-lost.png": partial(
            _losses,
            metric="share_lost",
            words="mean share of the best layer's gain\nlost by the pick",
        ),
        "coverage.png": _coverage,
    }
    if not any("coverage" in level.means for level in found.levels.values()):
        # Without contributions there is nothing in their units to draw.
        pictures = {"share-lost.png": pictures["share-lost.png"]}
    for name, draw in pictures.items():
        _write(draw, found, folder / name)
    return [folder / name for name in pictures]


def _write(draw: Callable[[Any, Evaluation], None], found: Evaluation, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure, found)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    save_picture(figure, path)


def _predicted(figure: Any, found: Evaluation) -> None:
    """One panel per level; a point is a layer whose model was left out."""
    figure.set_size_inches(3.4 * len(found.levels) + 0.6, 3.7)
    axes = figure.subplots(1, len(found.levels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, level) in zip(axes, found.levels.items(), strict=True):
        for example, held in level.held_out.items():
            if example.stands_in:
                continue
            layers = example.measured
            pick = layers == layers[held.prediction.contribution[layers].argmax()]
            for colour, chosen, size in ((BLUE, ~pick, 3), (GREEN, pick, 5)):
                axis.errorbar(
                    held.prediction.contribution[layers][chosen],
                    example.contributions[layers][chosen],
                    yerr=example.errors[layers][chosen],
                    fmt="o",
                    color=colour,
                    ms=size,
                    lw=0.6,
                    alpha=0.6,
                )
        axis.axline((0, 0), slope=1, color=GREY, lw=0.8, ls=":")
        axis.set_title(f"{name}: ρ = {level.means['spearman'].mean:.2f}", fontsize=10)
        axis.set_xlabel("predicted contribution")
    axes[0].set_ylabel("measured contribution\n(green: the picks)")


def _losses(figure: Any, found: Evaluation, *, metric: str, words: str) -> None:
    """Left: mean loss of the picks against the share of the sweep's time. Right: baselines."""
    figure.set_size_inches(8.4, 4.2)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for name, level in found.levels.items():
        if level.time_share is None or metric not in level.means:
            continue
        point = (100 * level.time_share.mean, level.means[metric].mean)
        error = level.means[metric].error
        left.errorbar(*point, yerr=error, fmt="o", color=BLUE, capsize=2, clip_on=False)
        left.annotate(name, point, xytext=(6, 4), textcoords="offset points", fontsize=9)
    judged = {name: means for name, means in found.baselines.items() if metric in means}
    shown = sorted(judged.items(), key=lambda item: item[1][metric].mean)
    right.bar(
        [name for name, _ in shown],
        [means[metric].mean for _, means in shown],
        yerr=[means[metric].error for _, means in shown],
        color=GREY,
        alpha=0.5,
        capsize=2,
    )
    right.tick_params(axis="x", labelrotation=90, labelsize=8)
    left.set_ylim(bottom=0)
    left.margins(x=0.2)
    left.set_xlim(left=0)
    left.set_xlabel("cost, % of the sweep's time")
    left.set_ylabel(words)


def _coverage(figure: Any, found: Evaluation) -> None:
    """Share of each sweep's layers within their interval, sorted, one line per level."""
    figure.set_size_inches(6.0, 3.6)
    axis = figure.subplots()
    for name, level in found.levels.items():
        if "coverage" not in level.means:
            continue
        shares = _held_by_sweep(level)
        axis.step(
            np.linspace(0, 100, len(shares)),
            100 * shares,
            where="mid",
            lw=1.4,
            label=f"{name}: {100 * level.means['coverage'].mean:.0f} % in the mean",
        )
    axis.axhline(100 * COVERAGE, color=GREY, lw=0.8, ls=":", label="meant")
    axis.set_ylim(0, 102)
    axis.set_xlabel("left-out sweeps, sorted (%)")
    axis.set_ylabel("layers within their interval (%)")
    axis.legend(fontsize=8, frameon=False, loc="lower right")


def _held_by_sweep(level: LevelAccuracy) -> np.ndarray:
    return np.sort([v["coverage"] for v in level.verdicts.values() if "coverage" in v])
