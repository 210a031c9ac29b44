"""A comparison of sweeps as tables and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerpick.calibration.judging.agreement import DIFFERENCES, Agreement, Summary
from layerpick.selector.comparison.run import Comparison

POPULATIONS = ("pretrained", "from scratch", "mixed")
MOST_SHOWN = 24
"""Sweeps beyond which the matrix is left to the picture and the JSON."""


def print_comparison(found: Comparison, console: Console) -> None:
    """The sweeps, every pair, and means by what tells pairs apart."""
    if not console.is_terminal:
        console.width = max(console.width, 200)
    console.print(_sweeps(found))
    if len(found.sweeps) <= MOST_SHOWN:
        console.print(_matrix(found))
    console.print(_means(found))
    for line in sentences(found):
        console.print(line, soft_wrap=True, highlight=False)


def sentences(found: Comparison) -> list[str]:
    """What the numbers are."""
    lines = [
        "ρ: rank correlation of the layers' scores, by layer for one model, by relative depth "
        "across models. Ceiling: what noise allows; of a sweep, the correlation with a repetition "
        "of it. ± : models left out one at a time."
    ]
    if len(found.sweeps) > MOST_SHOWN:
        lines.append("Every pair is in --json, and in the picture that --out draws.")
    return lines


def to_json(found: Comparison) -> str:
    """Everything, as JSON."""
    content = {
        "sweeps": [
            {
                "name": sweep.name,
                "model": sweep.model,
                "family": sweep.family,
                "population": sweep.population,
                "task": sweep.task,
                "data": sweep.data,
                "algorithm": sweep.algorithm,
                "layers": sweep.layers.tolist(),
                "scores": sweep.scores.tolist(),
                "ceiling": sweep.ceiling,
            }
            for sweep in found.sweeps
        ],
        "pairs": [{"sweeps": pair, **asdict(each)} for pair, each in found.agreements.items()],
        "means": [
            {"difference": difference, "population": population, **asdict(each)}
            for (difference, population), each in found.summaries.items()
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _sweeps(found: Comparison) -> Table:
    table = Table(title="Sweeps", title_justify="left")
    for heading in ("", "model · sweep", "family", "population"):
        table.add_column(heading, justify="right" if not heading else "left", no_wrap=True)
    for heading in ("algorithm", "layers", "ceiling"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, sweep in enumerate(found.sweeps, start=1):
        table.add_row(
            str(number),
            escape(sweep.name),
            sweep.family or "",
            sweep.population,
            sweep.algorithm,
            str(len(sweep.layers)),
            _number(sweep.ceiling),
        )
    return table


def _matrix(found: Comparison) -> Table:
    title = "Rank correlation ρ / ceiling; on the diagonal the sweep with a repetition"
    table = Table(title=title, title_justify="left")
    for heading in ("", *(str(number + 1) for number in range(len(found.sweeps)))):
        table.add_column(heading, justify="right", no_wrap=True)
    for row, sweep in enumerate(found.sweeps):
        cells = [_cell(found.agreements.get((column, row))) for column in range(row)]
        diagonal = f"[dim]{_number(sweep.ceiling) or '–'}[/dim]"
        table.add_row(str(row + 1), *cells, diagonal, *[""] * (len(found.sweeps) - row - 1))
    return table


def _means(found: Comparison) -> Table:
    table = Table(title="Mean over pairs of sweeps that differ in …", title_justify="left")
    table.add_column("")
    for population in POPULATIONS:
        name = "one of each" if population == "mixed" else population
        table.add_column(f"{name}: ρ", justify="right", no_wrap=True)
        table.add_column("of ceiling", justify="right", no_wrap=True)
        table.add_column("pairs, models", justify="right", no_wrap=True)
    for difference, words in DIFFERENCES.items():
        groups = [found.summaries.get((difference, population)) for population in POPULATIONS]
        if any(groups):
            table.add_row(words, *(cell for group in groups for cell in _summary(group)))
    return table


def _summary(found: Summary | None) -> tuple[str, str, str]:
    if found is None:
        return "", "", ""
    error = "" if found.error is None else f" ± {found.error:.2f}"
    bounded = (
        f"{_number(found.rho_with_ceiling)} of {found.ceiling:.2f}"
        if found.ceiling is not None
        else ""
    )
    return f"{found.rho:.2f}{error}", bounded, f"{found.pairs}, {found.models}"


def _cell(found: Agreement | None) -> str:
    if found is None:
        return "–"
    return f"{found.rho:.2f}" + ("" if found.ceiling is None else f" / {found.ceiling:.2f}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
