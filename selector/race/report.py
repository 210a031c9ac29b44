"""A race as a person reads it."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerpick.calibration.sweeps.paired import Measured, paired_difference
from layerpick.selector.race.result import ArmResult, RaceResult
from layerpick.training.runs.folder import PolicyScore

LATE = 0.25
"""Share of an arm's steps whose rewards are shown."""


def print_race(result: RaceResult, console: Console) -> None:
    """The arms, best first, then the sentences that matter."""
    console.print(arms_table(result))
    for line in sentences(result):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"[bold]{escape(result.headline)}[/bold]", soft_wrap=True, highlight=False)


def arms_table(result: RaceResult) -> Table:
    """One row for each arm; the winner's is bold."""
    table = Table(title=escape(f"{result.model} · {result.task} · {result.algorithm}: race"))
    headings = ["layer", "predicted", "steps", "late reward", "chance best", "score"]
    headings[1:1] = ["rate"] if result.rates > 1 else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for arm in result.ranked:
        won = result.won(arm)
        rate = [f"{arm.learning_rate:g}"] if result.rates > 1 else []
        table.add_row(
            f"{arm.layer} ★" if won else str(arm.layer),
            *rate,
            f"{arm.predicted:.2f}",
            str(arm.steps),
            _late(arm),
            f"{arm.chance_best:.0%}",
            _score(arm, result),
            style="bold" if won else None,
        )
    return table


def sentences(result: RaceResult) -> list[str]:
    """What the winner gained, against the base and against the runner-up, and what it rests on."""
    winner, *others = (arm for arm in result.ranked if arm.score)
    assert winner.score is not None
    lines = [
        f"Score on {len(result.base.by_prompt)} held-out prompts: {_value(result.base)} before, "
        f"{_value(winner.score)} after ({_difference(winner.score, result.base)})."
    ]
    for arm in others:
        assert arm.score is not None
        when = "" if arm.steps == result.steps else f", as it left after {arm.steps} steps"
        lines.append(
            f"Runner-up: {result.name(arm)}, {_value(arm.score)}{when}; the winner beats it by "
            f"{_difference(winner.score, arm.score)}."
        )
    return [*lines, f"Arms by: {result.basis}. Chances are those when an arm was last judged."]


def _late(arm: ArmResult) -> str:
    late = arm.curve[-max(1, round(LATE * len(arm.curve))) :]
    return f"{np.mean(late):.3f}" if late else ""


def _score(arm: ArmResult, result: RaceResult) -> str:
    if arm.score is None:
        return arm.failure or "left"
    return _value(arm.score) + (" (left)" if arm.steps < result.steps else "")


def _value(score: PolicyScore) -> str:
    return f"{score.mean:.3f} ± {score.error:.3f}"


def _difference(score: PolicyScore, other: PolicyScore) -> str:
    """Paired by prompt."""
    found = paired_difference(Measured.once(score.by_prompt), Measured.once(other.by_prompt))
    return f"{found.mean:+.3f} ± {found.error:.3f}"
