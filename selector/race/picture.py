"""The picture of a race: every arm's curve, and where it left."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from layerpick.selector.race.result import RaceResult
from layerpick.selector.suggestion.picture import save_picture

BLUE, GREY = "#2f6fab", "#7a7a7a"


def draw_race(result: RaceResult, path: Path) -> None:
    """Write a PNG: mean rewards over the last five steps, the winner in blue."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for rung in result.rungs:
        axis.axvline(rung, color=GREY, lw=0.6, ls=":")
    axis.axhline(result.base.mean, color=GREY, lw=0.8)
    axis.text(0, result.base.mean, " base", va="bottom", ha="left", fontsize=8, color=GREY)
    for arm in result.arms:
        if not arm.curve:
            continue
        won = arm.layer == result.winner
        steps = range(1, len(arm.curve) + 1)
        smooth = [float(np.mean(arm.curve[max(0, n - 5) : n])) for n in steps]
        shade = BLUE if won else GREY
        axis.plot(steps, smooth, color=shade, lw=2.2 if won else 1.1)
        axis.plot(steps[-1], smooth[-1], "o" if arm.score else "x", color=shade, ms=5)
        axis.annotate(
            f"{arm.layer}", (steps[-1], smooth[-1]), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=8, color=shade,
        )  # fmt: skip
    axis.set_xlabel("RL step (dotted: arms may leave; × left)")
    axis.set_ylabel("training reward")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result.model} · {result.task}: layer {result.winner} wins", fontsize=10)
    save_picture(figure, path)
