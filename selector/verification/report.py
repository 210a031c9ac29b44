"""A verification as a table and a few sentences."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerpick.selector.verification.result import LayerVerdict, MeasuredScore, Verification


def print_verification(verification: Verification, console: Console) -> None:
    """One line per layer, then what it means for the pick."""
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(layers_table(verification))
    for line in sentences(verification):
        console.print(line, soft_wrap=True, highlight=False)


def headline(found: Verification) -> str:
    """What the pick is worth, or by what it was measured where no share of a gain is known."""
    first = f"Picked: {found.picked}."
    if found.pick.measured is None:
        return f"{first} Measured by {found.measured_by}."
    rank = "" if found.rank is None else f": {_rank(found)}"
    return f"{first} It recovers {_measured(found.pick)} of {gain_in_words(found)}{rank}."


def gain_in_words(found: Verification) -> str:
    """Which gain a contribution is a share of; that of another kind of run says so."""
    if not found.differences:
        return "the full-parameter gain"
    return f"a full-parameter gain measured with other settings ({_differences(found)})"


def sentences(found: Verification) -> list[str]:
    """Contribution, interval, rank and regret of the pick."""
    lines = [f"[bold]Picked: {found.picked}.[/bold] Measured by {found.measured_by}."]
    scores = {"base": found.base, "with the pick trained": found.trained, "full": found.full}
    listed = ", ".join(f"{name} {_score(value)}" for name, value in scores.items() if value)
    lines.append(f"Scores: {listed}.")
    if found.refusal:
        lines.append(f"[bold]No contributions.[/bold] {found.refusal}")
    pick = found.pick
    if pick.measured is not None:
        lines.append(f"Measured contribution {_measured(pick)}.{_prediction(found)}")
    if found.rank is not None:
        losses = "" if found.regret is None else f"; regret {found.regret:.2f}"
        if found.share_lost is not None:
            error = "" if found.share_lost_error is None else f" ± {found.share_lost_error:.2f}"
            losses += f"; share of the best layer's gain lost {found.share_lost:.2f}{error}"
        lines.append(f"{_rank(found).capitalize()}{losses}.")
    if found.rank_correlation is not None:
        ceiling = (
            "" if found.noise_ceiling is None else f" (noise ceiling {found.noise_ceiling:.2f})"
        )
        lines.append(
            f"Predicted against measured, all layers: rank correlation "
            f"{found.rank_correlation:.2f}{ceiling}; {found.intervals_held or 0:.0%} of the "
            f"intervals held, {found.coverage or 0:.0%} should."
        )
    if found.differences:
        told = escape(_differences(found))
        lines.append(f"[bold]Measured with other settings:[/bold] {told}.")
    return lines


def _differences(found: Verification) -> str:
    return "; ".join(found.differences)


def _rank(found: Verification) -> str:
    count = sum(layer.score is not None for layer in found.layers)
    best = "the best" if found.rank == 1 else f"the best is layer {found.best}"
    return f"rank {found.rank} of {count} measured layers ({best})"


def _prediction(found: Verification) -> str:
    pick = found.pick
    if pick.predicted is None or pick.interval is None:
        return ""
    low, high = pick.interval
    verdict = "held" if found.interval_held else "did not hold"
    return f" Predicted {pick.predicted:.2f}, and the interval {low:.2f} … {high:.2f} {verdict}."


def layers_table(found: Verification) -> Table:
    """One line per layer, best prediction first."""
    title = escape(f"{found.model} · {found.task} · {found.algorithm}")
    title += ": prediction and measurement"
    table = Table(title=title, title_justify="left")
    for heading in ("layer", "predicted", "interval", "measured", "interval held", "score"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in sorted(found.layers, key=lambda each: -(each.predicted or each.measured or 0.0)):
        interval = "" if layer.interval is None else "{:.2f} … {:.2f}".format(*layer.interval)
        table.add_row(
            str(layer.layer),
            "" if layer.predicted is None else f"{layer.predicted:.2f}",
            interval,
            _measured(layer),
            {True: "yes", False: "no", None: ""}[layer.held],
            "" if layer.score is None else f"{layer.score:.3f} ± {layer.score_error or 0.0:.3f}",
            style="bold green" if layer.layer == found.pick.layer else None,
        )
    return table


def _measured(layer: LayerVerdict) -> str:
    if layer.measured is None:
        return ""
    return f"{layer.measured:.2f}" + ("" if layer.error is None else f" ± {layer.error:.2f}")


def _score(value: MeasuredScore) -> str:
    return f"{value.mean:.3f}" + ("" if value.error is None else f" ± {value.error:.3f}")
