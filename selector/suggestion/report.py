"""The suggestion as a table and a few sentences."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from layerpick.probes.table import headings
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
WIDTH = 160
"""Of what is printed to a pipe."""
RATES: dict[tuple[Rates, ...], str] = {
    ("shared",): "those of runs at one learning rate, as in arXiv 2607.01232",
    ("own",): "those of full and single-layer runs each at its own best learning rate",
    ("own", "shared"): "learned from sweeps of both kinds: each run at its own best learning rate, "
    "and all at a shared one",
}


def shown_features(suggestion: Suggestion) -> list[str]:
    """The most telling features that were measured, those of one's own probes first.

    If none of them was, the first of any.
    """
    measured = suggestion.layers[suggestion.pick].features
    own = [name for name in headings() if name not in MOST_TELLING]
    known = [name for name in (*own, *MOST_TELLING) if name in measured]
    return (known or list(measured))[:MOST_SHOWN]


def heading(feature: str) -> str:
    """A feature's name, short enough for a column."""
    return headings().get(feature, feature.replace("_", " "))


def print_suggestion(suggestion: Suggestion, console: Console) -> None:
    """Ranked layers, then what the ranking rests on, what it cost and what the pick saves."""
    # A table narrower than its columns would lose digits; a pipe has no width of its own.
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    console.print(fitting_table(suggestion, console))
    for line in sentences(suggestion):
        console.print(line, soft_wrap=True, highlight=False)


def sentences(suggestion: Suggestion) -> list[str]:
    """What a person should know beside the table."""
    rollouts, cost, savings = suggestion.rollouts, suggestion.cost, suggestion.savings
    pick = suggestion.layers[suggestion.pick]
    share = savings.trainable_parameters / savings.full_parameters
    lines = [
        f"[bold]Pick: layer {suggestion.pick}[/bold] of {len(suggestion.layers)}, predicted to "
        f"recover {pick.predicted:.2f} of the full-parameter gain ({_interval(pick)} at "
        f"{suggestion.coverage:.0%}).",
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
        lines.append(
            f"Not measured, and tell more: {', '.join(times)}; `--budget MINUTES` goes as far as "
            f"they last."
        )
    if suggestion.measured_by:
        lines.append(f"Measured contributions: {escape(str(suggestion.measured_by))}.")
    if suggestion.task.prompt_form:
        lines.append(f"Prompts: {escape(suggestion.task.prompt_form)}.")
    if suggestion.task.note:
        lines.append(escape(suggestion.task.note))
    lines += [
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
    return lines


def fitting_table(suggestion: Suggestion, console: Console) -> Table:
    """The ranking with as many features as a console has room for, most telling first."""
    unbounded = console.options.update(max_width=10 * WIDTH)
    for most in range(MOST_SHOWN, 0, -1):
        table = ranking_table(suggestion, most)
        if console.measure(table, options=unbounded).maximum <= console.width:
            return table
    return ranking_table(suggestion, 0)


def ranking_table(suggestion: Suggestion, most: int = MOST_SHOWN) -> Table:
    """One line per layer, best first, with so many features at most."""
    task = suggestion.task
    title = f"{suggestion.model.id} · {task.name} ({task.source}) · {task.algorithm}"
    table = Table(title=escape(title), title_justify="left")
    features = shown_features(suggestion)[:most]
    for column in ("rank", "layer", "depth", "predicted", "interval", "chance best"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in features:
        table.add_column(heading(name), justify="right")
    if suggestion.measured_by:
        table.add_column("measured", justify="right")
    for rank, layer in enumerate(suggestion.ranked, start=1):
        cells = [
            str(rank),
            str(layer.layer),
            f"{layer.depth:.2f}",
            f"{layer.predicted:.2f}",
            _interval(layer),
            f"{layer.chance_best:.0%}",
            *(
                f"{value:.3g}" if (value := layer.features.get(name)) is not None else "–"
                for name in features
            ),
        ]
        if suggestion.measured_by:
            cells.append("–" if layer.measured is None else f"{layer.measured:.2f}")
        style = "bold green" if layer.layer == suggestion.pick else None
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _probe_lines(suggestion: Suggestion) -> list[str]:
    probes = suggestion.cost.probes
    costs = [f"{p.name} {p.seconds:.1f} s, {_bytes(p.peak_bytes)}" for p in probes]
    lines = [f"Probes (time, peak memory): {'; '.join(costs)}."] if costs else []
    lines += [f"Left out of {p.name}: {escape(p.failure)}" for p in probes if p.failure]
    hidden = len(suggestion.layers[suggestion.pick].features) - len(shown_features(suggestion))
    if hidden:
        lines.append(f"{hidden} more features of each layer are in suggestion.json.")
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
