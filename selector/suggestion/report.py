"""The suggestion as a table and a few sentences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from layerpick.calibration.predictors.losses import HELD
from layerpick.probes.table import headings, own_headings
from layerpick.selector.progress import in_time
from layerpick.selector.suggestion.result import LayerSuggestion, RolloutSummary, Suggestion
from layerpick.training.sweeps.records import Rates

MOST_TELLING = (
    *("warm_up_5_gain", "off_policy_5_gain", "long_step_normalised_gain"),
    *("gradient_snr", "fisher_gain", "adam_gain", "curvature_gain", "gradient_norm"),
    *("block_influence", "bypass_contrast", "spectrum_snr"),
)
"""Built-in features in the order in which they are shown; every feature is in the JSON."""
MOST_SHOWN = 6
SHOWN = 2
"""Features beside the ranking, if it is not asked for whole."""
FOLDED = 30
"""Layers from which on the middle of the ranking is left out."""
TOP, BOTTOM = 12, 4
"""Layers that are left then."""
WIDTH = 160
"""Of what is printed to a pipe."""
RATES: dict[tuple[Rates, ...], str] = {
    ("shared",): "those of runs at one learning rate, as in arXiv 2607.01232",
    ("own",): "those of full and single-layer runs each at its own best learning rate",
    ("own", "shared"): "learned from sweeps of both kinds: each run at its own best learning rate, "
    "and all at a shared one",
}


def shown_features(suggestion: Suggestion) -> list[str]:
    """What was measured, most telling first: one's own probes, what moved the ranking, the rest.

    If there are none of these, the first of any. The others are in the JSON only.
    """
    measured = suggestion.layers[suggestion.pick].features
    moved = [each.feature for each in suggestion.influences]
    telling = [name for name in MOST_TELLING if all(name in x.features for x in suggestion.layers)]
    known = [name for name in (*own_headings(), *moved, *telling) if name in measured]
    return (list(dict.fromkeys(known)) or list(measured))[:MOST_SHOWN]


def heading(feature: str) -> str:
    """A feature's name, short enough for a column."""
    return headings().get(feature, feature.replace("_", " "))


def print_suggestion(suggestion: Suggestion, console: Console, wide: bool = False) -> None:
    """What to train, the ranking, what it rests on, what it cost and what the pick saves."""
    # A table narrower than its columns would lose digits; a pipe has no width of its own.
    if wide or not console.is_terminal:
        console.width = max(console.width, WIDTH)
    first, *rest = sentences(suggestion)
    console.print(first, soft_wrap=True, highlight=False)
    table = ranking_table(suggestion) if wide else fitting_table(suggestion, console)
    console.print(table, soft_wrap=wide)
    for line in rest:
        console.print(line, soft_wrap=True, highlight=False)


def sentences(suggestion: Suggestion) -> list[str]:
    """What a person should know, the most important first."""
    pick = suggestion.layers[suggestion.pick]
    lines = [
        headline(suggestion),
        f"It is predicted to recover {pick.predicted:.2f} of the full-parameter gain "
        f"({_interval(pick)} at {suggestion.coverage:.0%}){_reasons(suggestion)}.",
        f"Basis: {suggestion.basis}.",
    ]
    if suggestion.rates:
        lines.append(f"Contributions are {RATES[suggestion.rates]}.")
    if suggestion.learning_rate:
        lines.append(
            f"Learning rate for it: {suggestion.learning_rate:g}, as far as its one step moved the "
            f"model; `layerpick train` takes it."
        )
    if suggestion.stopped:
        lines.append(f"Stopped: {suggestion.stopped}.")
    elif suggestion.further:
        times = (f"{name} (about {in_time(s)})" for name, s in suggestion.further.items())
        lines.append(f"Not measured, and tell more: {', '.join(times)}.")
    if suggestion.measured_by:
        lines.append(f"Measured contributions: {escape(str(suggestion.measured_by))}.")
    if suggestion.task.prompt_form:
        lines.append(f"Prompts: {escape(suggestion.task.prompt_form)}.")
    if suggestion.task.note:
        lines.append(escape(suggestion.task.note))
    return [*lines, *_costs(suggestion)]


def headline(suggestion: Suggestion) -> str:
    """The pick, what it may lose against the best layer, and which layers that may be."""
    picked = f"[bold]Pick: layer {suggestion.pick}[/bold] of {len(suggestion.layers)}"
    if suggestion.expected_loss is None or suggestion.loss_bound is None:
        return f"{picked}."
    others = [layer for layer in suggestion.shortlist if layer != suggestion.pick]
    rivals = f"the best layer may also be {_listed(others)}" if others else "no other comes near"
    return (
        f"{picked}, expected to be {suggestion.expected_loss:.2f} of the full-parameter gain below "
        f"the best layer (in {HELD:.0%} of cases at most {suggestion.loss_bound:.2f}); {rivals}."
    )


def fitting_table(suggestion: Suggestion, console: Console) -> Table:
    """The ranking as far as a console has room for it, its middle folded if it is long."""
    unbounded = console.options.update(max_width=10 * WIDTH)
    for most in range(SHOWN, 0, -1):
        table = ranking_table(suggestion, most, folded=True)
        if console.measure(table, options=unbounded).maximum <= console.width:
            return table
    return ranking_table(suggestion, 0, folded=True)


def ranking_table(suggestion: Suggestion, most: int | None = None, folded: bool = False) -> Table:
    """One line per layer, best first, with so many features at most; all if None."""
    task = suggestion.task
    model = suggestion.model.name
    table = Table(
        title=escape(f"{model} · {task.name} ({task.source}) · {task.algorithm}"),
        title_justify="left",
    )
    features = shown_features(suggestion)[:most]
    for column in ("#", "layer", "depth", "predicted", "interval", "chance\nbest"):
        table.add_column(column, justify="right", no_wrap=True)
    for feature in features:
        # A word on each line, so that the column is narrow.
        name = heading(feature).replace(" ", "\n") + _direction(suggestion, feature)
        table.add_column(name, justify="right", no_wrap=True)
    if suggestion.measured_by:
        table.add_column("measured", justify="right")
    count = len(suggestion.layers)
    left_out = range(TOP, count - BOTTOM) if folded and count >= FOLDED else range(0)
    for place, layer in enumerate(suggestion.ranked):
        if place in left_out:
            if place == left_out.start:
                table.add_row("…", f"{len(left_out)} more", *[""] * 3, "--wide")
            continue
        style = "bold green" if layer.layer == suggestion.pick else None
        cells = _cells(suggestion, place + 1, layer, features)
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _cells(
    suggestion: Suggestion, rank: int, layer: LayerSuggestion, features: Sequence[str]
) -> list[str]:
    values = (layer.features.get(name) for name in features)
    cells = [
        str(rank),
        str(layer.layer),
        f"{layer.depth:.2f}",
        f"{layer.predicted:.2f}",
        _interval(layer),
        f"{layer.chance_best:.0%}",
        *("–" if value is None else f"{value:.3g}" for value in values),
    ]
    if suggestion.measured_by:
        cells.append("–" if layer.measured is None else f"{layer.measured:.2f}")
    return cells


def _direction(suggestion: Suggestion, feature: str) -> str:
    """Whether a high value moved a layer up or down the ranking, if it moved it much."""
    for influence in suggestion.influences:
        if influence.feature == feature:
            return " ↑" if influence.higher_is_better else " ↓"
    return ""


def _reasons(suggestion: Suggestion) -> str:
    if not suggestion.because:
        return ""
    following = suggestion.ranked[1].layer
    named = _listed([heading(name) for name in suggestion.because], "and")
    return f"; above layer {following} for its {named}"


def _listed(items: Sequence[object], last: str = "or") -> str:
    *first, final = map(str, items)
    return f"{', '.join(first)} {last} {final}" if first else final


def _costs(suggestion: Suggestion) -> list[str]:
    rollouts, cost, savings = suggestion.rollouts, suggestion.cost, suggestion.savings
    share = savings.trainable_parameters / savings.full_parameters
    return [
        f"Rollouts: mean reward {rollouts.mean_reward:.3f} ± {rollouts.reward_error:.3f}; "
        f"{rollouts.groups_with_signal} of {rollouts.prompts} groups carry signal"
        f"{_completions(rollouts)}.",
        f"Cost: {cost.seconds:.1f} s ({cost.load_seconds:.1f} loading, "
        f"{cost.sampling_seconds:.1f} sampling, "
        f"{sum(probe.seconds for probe in cost.probes):.1f} probing), "
        f"{cost.sampled_tokens:,} tokens sampled, {cost.probe_tokens:,} probed, "
        f"peak memory {_bytes(cost.peak_bytes)}.",
        *_probe_lines(suggestion),
        f"Training layer {suggestion.pick} alone: {savings.trainable_parameters:,} of "
        f"{savings.full_parameters:,} parameters ({share:.1%}); gradients and AdamW's state "
        f"{_bytes(savings.training_bytes)} in place of {_bytes(savings.full_training_bytes)}.",
    ]


def _probe_lines(suggestion: Suggestion) -> list[str]:
    probes = suggestion.cost.probes
    costs = [f"{p.name} {p.seconds:.1f} s, {_bytes(p.peak_bytes)}" for p in probes]
    lines = [f"Probes (time, peak memory): {'; '.join(costs)}."] if costs else []
    lines += [f"Left out of {p.name}: {escape(p.failure)}" for p in probes if p.failure]
    count = len(suggestion.layers[suggestion.pick].features)
    if count:
        lines.append(f"All {count} features of each layer are in suggestion.json.")
    return lines


def _interval(layer: LayerSuggestion) -> str:
    return f"{layer.interval[0]:.2f} … {layer.interval[1]:.2f}"


def _completions(rollouts: RolloutSummary) -> str:
    if rollouts.cut is None or rollouts.readable is None:
        return ""
    return (
        f"; {rollouts.cut:.0%} of the completions cut off at {rollouts.max_new_tokens:,} tokens, "
        f"{rollouts.readable:.0%} with an answer that can be read"
    )


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
