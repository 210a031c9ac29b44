"""A race as a page."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from layerpick.selector.pages.charts import BLUE, SOFT, draw
from layerpick.selector.pages.parts import Chart, Facts, Lines, Page, from_rich, how_made, plain
from layerpick.selector.race.picture import draw_arms
from layerpick.selector.race.racing import RaceOutcome
from layerpick.selector.race.report import arms_table, sentences
from layerpick.selector.race.result import RaceResult
from layerpick.selector.suggestion.page import profile_chart
from layerpick.selector.suggestion.report import ranking_table

_KEY = "race"


def race_page(outcome: RaceOutcome) -> Page:
    """Who won, every arm, how the race went, what was predicted, and how to make it again."""
    result, suggestion = outcome.result, outcome.suggestion
    title = f"{result.model} · {result.task} · {result.algorithm} · race"
    settings = outcome.winner.description().settings.model_dump()
    facts = {
        "winner": str(outcome.winner.path),
        "seed": str(result.seed),
        **{name: str(value) for name, value in settings.items() if value is not None},
    }
    return Page(
        title,
        result.headline,
        (
            arms_chart(result),
            from_rich(arms_table(result), "Arms"),
            Lines("What to know", tuple(plain(line) for line in sentences(result))),
            profile_chart(suggestion),
            from_rich(ranking_table(suggestion), "Predicted before the race"),
            Facts("Settings", facts),
            Facts("Versions", result.versions),
            how_made(),
        ),
    )


def arms_chart(result: RaceResult) -> Chart:
    """The curves of all arms, and for each stretch between rungs who was in."""
    stages = list(pairwise((0, *result.rungs, result.steps)))

    def on(figure: Any) -> None:
        axis = figure.subplots()
        draw_arms(axis, result, BLUE, SOFT)
        for number, (start, end) in enumerate(stages):
            axis.axvspan(start, end, alpha=0.0, lw=0, gid=f"{_KEY}-stage-{number}")

    tips = {f"{_KEY}-stage-{i}": _tip(result, *stage) for i, stage in enumerate(stages)}
    note = (
        "Training rewards. After each dotted line arms that could hardly win left (×). Point at a "
        "stretch, or go through them with Tab and the arrow keys."
    )
    return Chart("The race", draw(on, (8.4, 3.6)), note, tips)


def _tip(result: RaceResult, start: int, end: int) -> list[str]:
    """Rewards of the arms in a stretch, and who left after it."""
    lines = [f"steps {start + 1} to {end}"]
    for arm in result.ranked:
        if arm.steps > start:
            lines.append(f"{result.name(arm)}: reward {np.mean(arm.curve[start:end]):.2f}")
    gone = [result.name(arm) for arm in result.ranked if arm.steps == end < result.steps]
    return [*lines, f"then {', '.join(gone)} left"] if gone else lines
