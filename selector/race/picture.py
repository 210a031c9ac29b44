"""The picture of a race: every arm's curve, and where it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from layerpick.selector.race.result import ArmResult, RaceResult
from layerpick.selector.suggestion.picture import save_picture

BLUE, GREY = "#2f6fab", "#7a7a7a"
SMOOTHED = 5
"""Steps whose mean is drawn."""
LEAST_GAP = 0.06
"""Between the names of arms that end at the same step, as a share of the picture's height."""


def draw_race(result: RaceResult, path: Path) -> None:
    """Write a PNG: mean rewards over the last five steps, the winner in blue."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    draw_arms(figure.subplots(), result, BLUE, GREY)
    winner = result.name(result.ranked[0])
    figure.suptitle(f"{result.model} · {result.task}: {winner} wins", fontsize=10)
    save_picture(figure, path)


def draw_arms(axis: Any, result: RaceResult, strong: str, weak: str) -> None:
    """All curves, the rungs, and the base score, into a drawing of matplotlib's."""
    from matplotlib.ticker import MaxNLocator

    for rung in result.rungs:
        axis.axvline(rung, color=weak, lw=0.6, ls=":")
    axis.axhline(result.base.mean, color=weak, lw=0.8)
    axis.text(
        result.steps, result.base.mean, "base", va="bottom", ha="right", fontsize=8, color=weak
    )
    drawn = [arm for arm in result.ranked[::-1] if arm.curve]
    for arm in drawn:
        won = result.won(arm)
        smooth = _smooth(arm)
        steps = range(1, len(smooth) + 1)
        colour = strong if won else weak
        axis.plot(steps, smooth, color=colour, lw=2.2 if won else 1.1)
        mark = "o" if arm.steps == result.steps else "x"
        axis.plot(steps[-1], smooth[-1], mark, color=colour, ms=5)
    low, high = axis.get_ylim()
    for arm, height in _heights(drawn, LEAST_GAP * (high - low)):
        axis.annotate(
            result.name(arm).removeprefix("layer "), (arm.steps, height), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=8,
            color=strong if result.won(arm) else weak,
        )  # fmt: skip
    axis.set_xlim(0, result.steps * (1.06 if result.rates == 1 else 1.14))
    axis.set_xlabel("RL step (dotted: arms may leave; × left)")
    axis.set_ylabel(f"training reward (mean of {SMOOTHED} steps)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.spines[["top", "right"]].set_visible(False)


def _smooth(arm: ArmResult) -> list[float]:
    steps = range(1, len(arm.curve) + 1)
    return [float(np.mean(arm.curve[max(0, n - SMOOTHED) : n])) for n in steps]


def _heights(arms: list[ArmResult], gap: float) -> list[tuple[ArmResult, float]]:
    """Where the arms' names stand: at the end of their curves, but not upon one another."""
    found = []
    for steps in {arm.steps for arm in arms}:
        last = -np.inf
        ending = [(_smooth(arm)[-1], arm) for arm in arms if arm.steps == steps]
        for height, arm in sorted(ending, key=lambda each: each[0]):
            last = max(height, last + gap)
            found.append((arm, last))
    return found
