"""The picture of a verification: measured contributions in their predicted intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from layerpick.selector.suggestion.picture import BLUE, GREEN, GREY, save_picture
from layerpick.selector.verification.result import Verification


def draw_verification(found: Verification, path: Path) -> None:
    """Write a PNG: intervals as bars, measurements with standard errors as points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(max(5.5, 2.5 + 0.25 * len(found.layers)), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    predicted = [
        (layer.layer, layer.predicted, *layer.interval)
        for layer in found.layers
        if layer.interval is not None
    ]
    if predicted:
        numbers, middle, low, high = np.array(predicted, dtype=float).T
        label = f"predicted, {found.coverage:.0%} interval" if found.coverage else "predicted"
        axis.bar(numbers, high - low, 0.7, low, color=BLUE, alpha=0.2, label=label)
        axis.plot(numbers, middle, "_", color=BLUE, ms=12)
    for colour, is_pick in ((GREY, False), (GREEN, True)):
        points = [
            (layer.layer, layer.measured, layer.error or 0.0)
            for layer in found.layers
            if layer.measured is not None and (layer.layer == found.pick.layer) == is_pick
        ]
        if points:
            numbers, measured, errors = np.array(points, dtype=float).T
            axis.errorbar(
                numbers,
                measured,
                yerr=errors,
                fmt="o",
                color=colour,
                ms=6 if is_pick else 4,
                capsize=2,
                label="measured, the pick" if is_pick else "measured",
            )
    axis.axhline(1.0, color=GREY, lw=0.8, ls=":")
    axis.axhline(0.0, color=GREY, lw=0.8)
    axis.set_xlabel("decoder layer (0 = at the input)")
    axis.set_ylabel("contribution\n(1 = full-parameter gain)", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{found.model} · {found.task} · {found.algorithm}", fontsize=10)
    save_picture(figure, path)
