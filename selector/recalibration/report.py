"""A calibration as a table and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerpick.calibration.judging.accuracy import Estimate
from layerpick.selector.recalibration.run import Calibrated, Change, NewPredictor

_SHOWN = (
    ("spearman", "ρ"),
    ("regret", "regret"),
    ("share_lost", "share lost"),
    ("coverage", "coverage"),
)


def print_calibration(found: Calibrated, console: Console) -> None:
    """One line per level, and how accuracy on models left out changed."""
    if not console.is_terminal:
        console.width = max(console.width, 120)
    table = Table("level", "chosen", "sweeps", "models", title="Predictors")
    for predictor in found.predictors:
        table.add_row(
            predictor.level,
            "; ".join(f"{name}: {lesson}" for name, lesson in predictor.lessons.items()),
            str(predictor.sweeps),
            str(predictor.models),
        )
    console.print(table)
    if found.own_sweeps:
        console.print(_changes(found))
        console.print(
            f"± is a standard error over models (bootstrap). Your own: {found.own_sweeps} sweeps.",
            highlight=False,
        )
    for predictor in found.predictors:
        console.print(f"Written: {escape(str(predictor.path))}", soft_wrap=True, highlight=False)


def to_json(found: Calibrated) -> str:
    """Everything, as JSON."""
    return json.dumps(asdict(found), indent=2, ensure_ascii=False, default=str) + "\n"


def _changes(found: Calibrated) -> Table:
    table = Table(title="On models left out: before, after, change", title_justify="left")
    for heading in ("level", "judged on", "measure", "before", "after", "change"):
        justify: Any = "left" if heading in ("level", "judged on", "measure") else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for predictor in found.predictors:
        for judged_on, change in _changed(predictor):
            for metric, heading in _SHOWN:
                table.add_row(
                    predictor.level,
                    judged_on,
                    heading,
                    _number(change.before.get(metric), "{:.2f} ± {:.2f}"),
                    _number(change.after.get(metric), "{:.2f} ± {:.2f}"),
                    _number(change.difference.get(metric), "{:+.2f} ± {:.2f}"),
                )
        table.add_section()
    return table


def _changed(predictor: NewPredictor) -> list[tuple[str, Change]]:
    pairs = (("all sweeps", predictor.everywhere), ("your own", predictor.own))
    return [(name, change) for name, change in pairs if change is not None]


def _number(estimate: Estimate | None, form: str) -> str:
    return "" if estimate is None else form.format(estimate.mean, estimate.error)
