"""The picture of a suggestion: predicted profile with its interval, the probes below it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layerpick.selector.suggestion.report import heading, shown_features
from layerpick.selector.suggestion.result import Suggestion
from layerpick.training.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GREEN, GREY = "#2f6fab", "#2a9d5c", "#7a7a7a"


def draw_suggestion(suggestion: Suggestion, path: Path) -> None:
    """Write a PNG: contribution by layer on top, then one strip per feature shown in tables."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    features = shown_features(suggestion)
    rows = 1 + len(features)
    figure = Figure(figsize=(8, 3.4 + 0.85 * len(features)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        rows, 1, sharex=True, height_ratios=[4] + [1] * len(features), squeeze=False
    )[:, 0]
    _profile(axes[0], suggestion)
    for axis, name in zip(axes[1:], features, strict=True):
        _strip(axis, suggestion, name)
    axes[-1].set_xlabel("decoder layer (0 = at the input)")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(
        f"{suggestion.model.name} · {suggestion.task.name} · "
        f"{suggestion.task.algorithm}: layer {suggestion.pick} picked",
        fontsize=11,
    )
    save_picture(figure, path)


def _profile(axis, suggestion: Suggestion) -> None:  # type: ignore[no-untyped-def]
    numbers = [layer.layer for layer in suggestion.layers]
    predicted = [layer.predicted for layer in suggestion.layers]
    low, high = np.array([layer.interval for layer in suggestion.layers]).T
    axis.fill_between(
        numbers,
        low,
        high,
        color=BLUE,
        alpha=0.15,
        lw=0,
        label=f"{suggestion.coverage:.0%} interval",
    )
    axis.plot(numbers, predicted, "o-", color=BLUE, ms=4, label="predicted")
    measured = [(x.layer, x.measured) for x in suggestion.layers if x.measured is not None]
    if measured:
        axis.plot(*zip(*measured, strict=True), "D", color="black", ms=4, label="measured")
    axis.axvline(suggestion.pick, color=GREEN, lw=1.5, ls="--", label="pick")
    axis.axhline(1.0, color=GREY, lw=0.8, ls=":")
    axis.set_ylabel("contribution\n(1 = full-parameter gain)", fontsize=9)
    axis.legend(fontsize=8, frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0, 1.13))
    axis.spines[["top", "right"]].set_visible(False)


def _strip(axis, suggestion: Suggestion, name: str) -> None:  # type: ignore[no-untyped-def]
    values = np.array([layer.features.get(name, np.nan) for layer in suggestion.layers])
    axis.bar(range(len(values)), values, width=0.7, color=GREY)
    axis.patches[suggestion.pick].set_color(GREEN)
    axis.set_ylabel(
        heading(name),
        rotation=0,
        ha="right",
        va="center",
        fontsize=8,
    )
    axis.set_yticks([0], [""])
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0)


def save_picture(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all. A `$` in a name begins no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", metadata={"Software": "layerpick"})
