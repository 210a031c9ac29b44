"""Drawings of a page: matplotlib's SVG, whose colours are the page's own.

Matplotlib draws vectors that scale, print and follow the page's light or dark colours, and it is
there anyway; a plotting library for the browser would add 25 MB (Bokeh) to 90 MB (Altair's).
"""

from __future__ import annotations

import io
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--line)",
    "#040404": "var(--blue)",
    "#050505": "var(--green)",
    "#060606": "var(--orange)",
}
"""What is drawn by what the page makes of it."""
INK, SOFT, LINE, BLUE, GREEN, ORANGE = COLOURS
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "layerpick",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Profile:
    """Values by layer."""

    key: str
    """Prefix of the ids in the drawing; each drawing of a page has its own."""
    layers: tuple[int, ...]
    label: str
    """Of the vertical axis."""
    predicted: Mapping[int, float] = field(default_factory=dict)
    intervals: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    measured: Mapping[int, tuple[float, float | None]] = field(default_factory=dict)
    """Mean and standard error."""
    pick: int | None = None
    pick_name: str = "the pick"
    lines: Mapping[str, float] = field(default_factory=dict)
    """Levels to compare with, by name."""
    others: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Further values, by name: one is shown at a time, from its least to its largest value."""

    def band(self, layer: int) -> str:
        """The id of a layer's column."""
        return f"{self.key}-layer-{layer}"

    @property
    def choices(self) -> dict[str, str]:
        """Names of the further values by their ids."""
        names = {f"{self.key}-other-{index}": name for index, name in enumerate(self.others)}
        return {f"{self.key}-other-none": "nothing", **names} if names else {}


def draw_profile(profile: Profile) -> str:
    """The profile as SVG: intervals, predictions, measurements with errors, a column per layer."""
    from matplotlib.ticker import MaxNLocator

    def on(figure: Any) -> None:
        axis = figure.subplots()
        for name, level in profile.lines.items():
            axis.axhline(level, color=SOFT, lw=0.9, ls=":")
            axis.annotate(
                name, (1, level), (4, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=8, color=SOFT,
            )  # fmt: skip
        _intervals(axis, profile)
        _measurements(axis, profile)
        axis.set_xlabel("decoder layer (0 = at the input)")
        axis.set_ylabel(profile.label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlim(min(profile.layers) - 0.6, max(profile.layers) + 0.6)
        if axis.get_legend_handles_labels()[0]:
            figure.legend(
                *axis.get_legend_handles_labels(), fontsize=8, frameon=False, ncols=4,
                loc="outside upper left",
            )  # fmt: skip
        _others(axis, profile)
        for layer in profile.layers:
            axis.axvspan(layer - 0.5, layer + 0.5, alpha=0.0, lw=0, gid=profile.band(layer))

    return draw(on, (8.4, 3.6))


def _intervals(axis: Any, profile: Profile) -> None:
    shown = [layer for layer in profile.layers if layer in profile.intervals]
    if shown:
        low, high = np.array([profile.intervals[layer] for layer in shown]).T
        axis.bar(shown, high - low, 0.62, low, color=BLUE, alpha=0.22, label="interval")
    points = [(layer, profile.predicted[layer]) for layer in shown if layer in profile.predicted]
    if points:
        axis.plot(*zip(*points, strict=True), "_", color=BLUE, ms=14, mew=2, label="predicted")


def _measurements(axis: Any, profile: Profile) -> None:
    for colour, is_pick in ((INK, False), (GREEN, True)):
        shown = [layer for layer in profile.measured if (layer == profile.pick) == is_pick]
        if shown:
            name = f"measured, {profile.pick_name}" if is_pick else "measured"
            means = [profile.measured[layer][0] for layer in shown]
            errors = [profile.measured[layer][1] or 0.0 for layer in shown]
            axis.errorbar(
                shown, means, yerr=errors, fmt="o", color=colour, ms=6 if is_pick else 4.5,
                capsize=2, lw=1.2, label=name,
            )  # fmt: skip
    if profile.pick is not None and profile.pick not in profile.measured:
        axis.axvline(profile.pick, color=GREEN, lw=1.4, ls="--", label="pick")


def _others(axis: Any, profile: Profile) -> None:
    if not profile.others:
        return
    second = axis.twinx()
    second.set_ylim(-0.05, 1.25)
    second.set_axis_off()
    for key, values in zip(list(profile.choices)[1:], profile.others.values(), strict=True):
        layers = [layer for layer in profile.layers if layer in values]
        numbers = np.array([values[layer] for layer in layers])
        span = float(np.ptp(numbers)) or 1.0
        heights = (numbers - numbers.min()) / span
        second.plot(layers, heights, "s-", color=ORANGE, ms=4, lw=1.4, gid=key)


def draw_curves(curves: Mapping[str, Sequence[float]], label: str, strong: Sequence[str]) -> str:
    """Values by RL step as SVG; those named in `strong` in colour, the others thin."""
    from matplotlib.ticker import MaxNLocator

    def on(figure: Any) -> None:
        axis = figure.subplots()
        colours = dict(zip(strong, (GREEN, BLUE, ORANGE, INK), strict=False))
        for name, values in curves.items():
            steps = range(1, len(values) + 1)
            if name in colours:
                axis.plot(steps, values, color=colours[name], lw=1.8, label=name)
            else:
                axis.plot(steps, values, color=SOFT, lw=0.7, alpha=0.5)
        axis.set_xlabel("RL step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylabel(label)
        axis.legend(fontsize=8, frameon=False, loc="best")

    return draw(on, (8.4, 3.0))


def draw_bars(
    key: str, values: Mapping[str, tuple[float, float]], label: str, strong: Container[str] = ()
) -> str:
    """Values with standard errors, by name, as horizontal bars; those in `strong` in green."""

    def on(figure: Any) -> None:
        axis = figure.subplots()
        names = list(values)
        means, errors = np.array([values[name] for name in names]).T
        colours = [GREEN if name in strong else BLUE for name in names]
        axis.barh(names, means, 0.6, xerr=errors, color=colours, alpha=0.6, ecolor=INK, capsize=2)
        axis.invert_yaxis()
        axis.set_xlabel(label)
        for index, _ in enumerate(names):
            axis.axhspan(index - 0.5, index + 0.5, alpha=0.0, lw=0, gid=f"{key}-{index}")

    return draw(on, (8.4, 1.0 + 0.26 * len(values)))


def draw(on: Any, size: tuple[float, float]) -> str:
    """What `on` puts on a figure as inline SVG, without a header, a date or a background."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        on(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for drawn, shown in COLOURS.items():
        svg = svg.replace(drawn, shown)
    return svg
