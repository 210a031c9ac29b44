"""A vote as a table and a few sentences."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerpick.selector.training_run.report import score
from layerpick.selector.voting.result import Vote


def print_vote(found: Vote, console: Console) -> None:
    """One line per voter, then what the majority gains and costs."""
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(_table(found))
    for line in sentences(found):
        console.print(line, soft_wrap=True, highlight=False)


def sentences(found: Vote) -> list[str]:
    """Score, agreement, cost."""
    best, count = found.voters[found.best], len(found.voters)
    stored = found.stored_parameters / found.full_parameters
    return [
        f"[bold]The majority of {count} scores {score(found.score)}[/bold], the best of them alone "
        f"{score(best.score)} ({found.gain:+.3f} ± {found.gain_error:.3f}), the base model "
        f"{score(found.base)}.",
        f"Agreement: {found.agreement:.0%} of the voters give the majority's answer in the mean; "
        f"{found.unanimous:.0%} of the votes are unanimous.",
        f"Cost: {found.tokens:,} tokens in place of {found.tokens_of_one:,.0f} "
        f"({found.seconds:.1f} s), and {found.stored_parameters:,} parameters beside the base "
        f"model's {found.full_parameters:,} ({stored:.0%}).",
    ]


def _table(found: Vote) -> Table:
    title = f"{Path(found.model).name} · {found.task}: the vote of {len(found.voters)} models"
    table = Table(title=title, title_justify="left")
    for column in ("run", "trained", "score", "with the majority"):
        table.add_column(column, justify="left" if column in ("run", "trained") else "right")
    for index, voter in enumerate(found.voters):
        table.add_row(
            escape(voter.run),
            voter.trained,
            score(voter.score),
            f"{voter.with_majority:.0%}",
            style="bold green" if index == found.best else None,
        )
    return table
