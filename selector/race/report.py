"""A race as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerpick.selector.race.result import RaceResult


def print_race(result: RaceResult, console: Console) -> None:
    """The arms, best first, then the sentence that matters."""
    table = Table(title=escape(f"{result.model} · {result.task} · {result.algorithm}: race"))
    for heading in ("layer", "predicted", "steps", "late reward", "chance best", "score"):
        table.add_column(heading, justify="right")
    order = sorted(
        result.arms, key=lambda arm: (arm.layer != result.winner, -arm.steps, -arm.chance_best)
    )
    for arm in order:
        late = arm.curve[-max(1, len(arm.curve) // 4) :]
        score = arm.score and f"{arm.score.mean:.3f} ± {arm.score.error:.3f}"
        table.add_row(
            f"{arm.layer} ★" if arm.layer == result.winner else str(arm.layer),
            f"{arm.predicted:.2f}",
            str(arm.steps),
            f"{sum(late) / len(late):.3f}" if late else "",
            f"{arm.chance_best:.0%}",
            score or escape(arm.failure or "left"),
        )
    console.print(table)
    console.print(f"Base: {result.base.mean:.3f} ± {result.base.error:.3f}. {result.basis}.")
    console.print(f"[bold]{result.headline}[/bold]", soft_wrap=True, highlight=False)
