"""A measured sweep as a table, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerpick.calibration.sweeps.measured import Measured, Reading

BLOCKS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 20
COLUMNS = (
    "model",
    "task",
    "algorithm",
    "run",
    "layer",
    "score",
    "score_error",
    "contribution",
    "contribution_error",
    "seeds",
    "below_best",
    "below_best_error",
    "share_of_best",
    "share_of_best_error",
)


def print_sweep(reading: Reading, console: Console) -> None:
    """One line per layer, then what the sweep says."""
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(layers_table(reading))
    for line in sentences(reading):
        console.print(line, soft_wrap=True, highlight=False)


def sentences(reading: Reading) -> list[str]:
    """The best layer, its equals, the noise ceiling and the cost."""
    lines = []
    if reading.refusal:
        lines.append(f"[bold]No contributions.[/bold] {reading.refusal}")
        lines.append(f"Layers by score: {', '.join(map(str, reading.ranked))}.")
    best = f"[bold]Best: layer {reading.best}[/bold] of {reading.settings.layers}"
    if reading.equals:
        listed = ", ".join(str(layer) for layer in reading.equals)
        lines.append(f"{best}; within two standard errors of it: {listed}.")
    else:
        lines.append(f"{best}; no other layer is within two standard errors of it.")
    if reading.nothing_gained:
        lines.append(reading.nothing_gained)
    ceiling = reading.noise_ceiling
    lines.append(
        "Noise ceiling: unknown; it needs two seeds, three layers and scores that differ."
        if ceiling is None
        else f"Noise ceiling: a repetition ranks the layers with rank correlation {ceiling:.2f}."
    )
    lines += [
        f"Layer {layer} failed: {escape(reason)}." for layer, reason in reading.failed.items()
    ]
    if reading.unfinished:
        listed = ", ".join(str(layer) for layer in reading.unfinished)
        lines.append(f"Not trained at every learning rate yet: {listed}.")
    lines.append(
        f"{_rates_in_words(reading)}; frozen weights in "
        f"{reading.settings.dtype}, trained in float32; {reading.seconds:.0f} s, "
        f"{reading.tokens:,} tokens written."
    )
    if reading.settings.prompt_form:
        lines.append(f"Prompts: {escape(reading.settings.prompt_form)}.")
    if reading.cut is not None:
        longest = reading.settings.max_new_tokens
        lines.append(
            f"{reading.cut:.0%} of the held-out completions cut off at {longest:,} tokens."
        )
    return lines


def _rates_in_words(reading: Reading) -> str:
    grid = ", ".join(f"{rate:g}" for rate in reading.learning_rate_grid)
    if reading.learning_rate is not None:
        return f"Learning rate {reading.learning_rate:g} of {grid}"
    return (
        f"Each at its own learning rate of {grid}, chosen on one half of the held-out prompts and "
        f"scored on the other, both ways round"
    )


def to_json(readings: Sequence[Reading]) -> str:
    """A list of sweeps with their runs."""
    return json.dumps([_as_dict(reading) for reading in readings], indent=2) + "\n"


def to_csv(readings: Sequence[Reading]) -> str:
    """One line per policy; empty cells where there is no value."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for reading in readings:
        settings = reading.settings
        shared = {
            "model": settings.model,
            "task": settings.task,
            "algorithm": settings.algorithm,
        }
        for row in _rows(reading):
            writer.writerow({**shared, **{key: row[key] for key in COLUMNS if key in row}})
    return text.getvalue()


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Values as blocks between `low` and `high`, averaged to at most 20 of them."""
    if not values:
        return ""
    parts = np.array_split(np.asarray(values), min(len(values), SPARKLINE_WIDTH))
    heights = (np.array([part.mean() for part in parts]) - low) / ((high - low) or 1.0)
    levels = np.clip((heights * len(BLOCKS)).astype(int), 0, len(BLOCKS) - 1)
    return "".join(BLOCKS[level] for level in levels)


def _rows(reading: Reading) -> list[dict[str, Any]]:
    named: list[tuple[str, int | None, Measured]] = [
        ("base", None, reading.base),
        ("full", None, reading.full),
        *(("layer", layer, measured) for layer, measured in reading.layers.items()),
    ]
    rows = []
    for run, layer, measured in named:
        known = layer is not None and reading.refusal is None
        contribution = reading.contribution(layer or 0) if known else None
        rows.append(
            {
                "run": run,
                "layer": layer,
                "score": measured.score.mean,
                "score_error": measured.score.error,
                "contribution": contribution.mean if contribution else None,
                "contribution_error": contribution.error if contribution else None,
                **(_beside_best(reading, layer) if layer is not None else {}),
                "seeds": len(measured.seeds),
                "learning_rates": measured.rates,
                "curve": measured.curve,
                "failures": measured.failures,
            }
        )
    return rows


def _beside_best(reading: Reading, layer: int) -> dict[str, float | int | None]:
    """A layer beside the best one, by prompt and seed."""
    below = reading.below_best(layer)
    share = reading.share_of_best(layer) if reading.nothing_gained is None else None
    return {
        "rank": 1 + reading.ranked.index(layer),
        "below_best": below.mean,
        "below_best_error": below.error,
        "share_of_best": share.mean if share else None,
        "share_of_best_error": share.error if share else None,
    }


def _as_dict(reading: Reading) -> dict[str, Any]:
    return {
        "settings": reading.settings.model_dump(),
        "learning_rate": reading.learning_rate,
        "learning_rate_grid": reading.learning_rate_grid,
        "runs": _rows(reading),
        "best": reading.best,
        "cannot_be_told_from_best": reading.equals,
        "refusal": reading.refusal,
        "nothing_gained": reading.nothing_gained,
        "ranked": reading.ranked,
        "noise_ceiling": reading.noise_ceiling,
        "failed": reading.failed,
        "seconds": reading.seconds,
        "tokens": reading.tokens,
        "cut": reading.cut,
    }


def layers_table(reading: Reading) -> Table:
    """One line per policy."""
    settings = reading.settings
    table = Table(
        title=escape(
            f"{settings.model} · {settings.task} ({settings.source}) · {settings.algorithm}"
        )
    )
    own = ["learning rate"] if reading.learning_rate is None else []
    for name in ("run", "score", "contribution", "below the best", *own, "training reward"):
        table.add_column(name, justify="left" if name in ("run", "training reward") else "right")
    rows = _rows(reading)
    rewards = [value for row in rows for value in row["curve"]]
    low, high = (min(rewards), max(rewards)) if rewards else (0.0, 1.0)
    for row in rows:
        name = row["run"] if row["layer"] is None else f"layer {row['layer']}"
        table.add_row(
            name,
            _number(row["score"], row["score_error"]),
            _number(row["contribution"], row["contribution_error"]),
            _number(row.get("below_best"), row.get("below_best_error"))
            if row["layer"] != reading.best
            else "",
            *(
                [" / ".join(f"{rate:g}" for rate in dict.fromkeys(row["learning_rates"]))]
                * len(own)
            ),
            sparkline(row["curve"], low, high),
            style="bold green" if row["layer"] == reading.best else None,
        )
    return table


def _number(value: float | None, error: float | None) -> str:
    return "" if value is None else f"{value:.3f} ± {error:.3f}"
