"""`layerpick evaluate --race`: races replayed on stored curves, as values and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.predictors.levels import find_level
from layerpick.calibration.races.replay import Replayed, replay
from layerpick.calibration.races.store import curves_of
from layerpick.calibration.sweeps.examples import load_examples
from layerpick.calibration.sweeps.population import Population
from layerpick.selector.progress import Reporter, Silent
from layerpick.training.errors import LayerpickError

LEVEL = "off_policy"


def replay_races(
    sweeps: Sequence[Path] | None = None,
    *,
    level: str | None = None,
    reporter: Reporter | None = None,
) -> dict[Population, list[Replayed]]:
    """Races and simpler ways to spend the same runs, on models left out, by population.

    `sweeps` are folders, the shipped one if left out; `level` is what the predictions rest on.
    Raises LayerpickError when fewer than two models have curves of two seeds.
    """
    roots, reporter = sweeps or [SHIPPED_SWEEPS], reporter or Silent()
    examples = load_examples(roots).examples
    curves = curves_of(examples, roots, find_level(level or LEVEL))
    if len({each.weights_hash for each in curves}) < 2:
        raise LayerpickError("Races are replayed on sweeps of two models and two seeds at least.")
    reporter.note(f"Replaying races on {len(curves)} sweeps.")
    return replay(curves)


def print_replays(found: Mapping[Population, Sequence[Replayed]], console: Console) -> None:
    """A table for each population, one row for each way."""
    for population, rows in found.items():
        table = Table(
            title=f"{population} models, {rows[0].sweeps} sweeps".capitalize(),
            title_justify="left",
        )
        for heading in ("layer trained in the end", "single-layer runs", "regret", "share lost"):
            table.add_column(heading, justify="right" if table.columns else "left")
        for each in rows:
            values = (each.cost, each.regret, each.share_lost)
            table.add_row(each.name, *(f"{mean:.3f} ± {error:.3f}" for mean, error in values))
        console.print(table)
    console.print(
        "Judged by the other seeds; ± is a standard error over models (bootstrap). Rules and "
        "predictions are learned from the other models. The probes' cost is not in it.",
        soft_wrap=True,
    )


def to_json(found: Mapping[Population, Sequence[Replayed]]) -> str:
    """The rows as data."""
    rows = {population: [asdict(each) for each in own] for population, own in found.items()}
    return json.dumps(rows, indent=2) + "\n"
