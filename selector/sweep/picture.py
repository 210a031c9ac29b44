"""The picture of a measured sweep: contribution by layer with error bars, or scores if refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerpick.calibration.sweeps.measured import Reading
from layerpick.selector.suggestion.picture import save_picture

BLUE, GREEN, GREY = "#2f6fab", "#2a9d5c", "#7a7a7a"


def draw_sweep(reading: Reading, path: Path) -> None:
    """Write a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(max(5.0, 2.5 + 0.25 * len(reading.layers)), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    draw_profile(axis, reading)
    axis.set_xlabel("decoder layer (0 = at the input)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    settings = reading.settings
    seeds = len(reading.full.seeds)
    figure.suptitle(
        f"{settings.model} · {settings.task} · {settings.algorithm} · "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}",
        fontsize=10,
    )
    save_picture(figure, path)


def draw_profile(axis: Any, reading: Reading) -> None:
    """Contributions with standard errors into a matplotlib axis; scores where they are refused.

    A thick bar is the standard error of a layer's difference from the best one, paired by prompt
    and seed: what tells these two apart. Layers that it cannot tell from the best are filled green.
    """
    layers = list(reading.layers)
    sweep = reading.sweep
    unit = 1.0
    if reading.refusal is None:
        measured = [reading.contribution(layer) for layer in layers]
        values = [contribution.mean for contribution in measured]
        errors = [contribution.error or 0.0 for contribution in measured]
        unit = reading.gain.mean
        axis.axhline(0.0, color=GREY, lw=0.8)
        axis.axhline(1.0, color=GREY, lw=0.8, ls=":", label="full-parameter RL")
        axis.set_ylabel("contribution")
    else:
        values = [sweep.layers[layer].mean for layer in layers]
        errors = [sweep.layers[layer].error or 0.0 for layer in layers]
        axis.axhline(sweep.base.mean, color=GREY, lw=0.8, label="base")
        axis.axhline(sweep.full.mean, color=GREY, lw=0.8, ls=":", label="full-parameter RL")
        axis.set_ylabel("score")
    axis.errorbar(layers, values, yerr=errors, fmt="o-", color=BLUE, ms=4, lw=1.2, capsize=2)
    apart = [(reading.below_best(layer).error or 0.0) / unit for layer in layers]
    axis.errorbar(
        layers,
        values,
        yerr=apart,
        fmt="none",
        ecolor=BLUE,
        elinewidth=4,
        alpha=0.35,
        label="± of the difference to it",
    )
    by_layer = dict(zip(layers, values, strict=True))
    for chosen, size, label in (
        ([reading.best], 7, "best layer"),
        (list(reading.equals), 4, "cannot be told from it"),
    ):
        heights = [by_layer[layer] for layer in chosen]
        axis.plot(chosen, heights, "o", color=GREEN, ms=size, zorder=3, label=label)
    axis.legend(fontsize=8, frameon=False, loc="best")
    axis.spines[["top", "right"]].set_visible(False)
