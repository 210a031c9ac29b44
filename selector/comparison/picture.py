"""The heat map of a comparison: rank correlation of every two sweeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from layerpick.selector.comparison.run import Comparison
from layerpick.selector.suggestion.picture import save_picture

NUMBERED = 16
"""Sweeps up to which every cell holds its number."""


def draw_comparison(found: Comparison, path: Path) -> None:
    """Write a PNG; the diagonal, framed, is the noise ceiling: a sweep with its repetition."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    count = len(found.sweeps)
    values = np.full((count, count), np.nan)
    for (first, second), each in found.agreements.items():
        values[first, second] = values[second, first] = each.rho
    for place, sweep in enumerate(found.sweeps):
        values[place, place] = np.nan if sweep.ceiling is None else sweep.ceiling
    side = max(0.24, 0.42 - 0.006 * count) * count
    figure = Figure(figsize=(side + 6.4, side + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.set_facecolor("#dddddd")
    image = axis.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    names = [f"{sweep.name}  {number}" for number, sweep in enumerate(found.sweeps, start=1)]
    axis.set_yticks(range(count), names, fontsize=7)
    axis.set_xticks(range(count), [str(number + 1) for number in range(count)], fontsize=7)
    for place in range(count):
        frame = (place - 0.5, place - 0.5)
        axis.add_patch(Rectangle(frame, 1, 1, fill=False, edgecolor="black", lw=0.8))
    if count <= NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.6 else "black"
                label = f"{value:.2f}"
                axis.text(column, row, label, ha="center", va="center", fontsize=6, color=colour)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axis, shrink=0.7)
    bar.set_label(
        "rank correlation of layers\n(framed: of a sweep with its repetition)", fontsize=8
    )
    save_picture(figure, path)
