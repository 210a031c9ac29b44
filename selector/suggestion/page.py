"""A suggestion as a page."""

from __future__ import annotations

from layerpick.selector.pages.charts import Profile, draw_profile
from layerpick.selector.pages.parts import (
    Chart,
    Facts,
    Lines,
    Page,
    Table,
    from_rich,
    how_made,
    plain,
)
from layerpick.selector.suggestion.report import heading, ranking_table, sentences, shown_features
from layerpick.selector.suggestion.result import LayerSuggestion, Suggestion


def suggestion_page(suggestion: Suggestion) -> Page:
    """Pick, profile, ranking, costs, settings and how to make it again."""
    headline, *rest = (plain(line) for line in sentences(suggestion))
    title = f"{suggestion.model.name} · {suggestion.task.name} · suggestion"
    return Page(
        title,
        headline,
        (
            profile_chart(suggestion),
            from_rich(ranking_table(suggestion), "Ranking"),
            Lines("What to know", tuple(rest)),
            _costs(suggestion),
            Facts("Settings", _settings(suggestion)),
            Facts("Versions", suggestion.versions),
            how_made(),
        ),
    )


def profile_chart(suggestion: Suggestion) -> Chart:
    """Predicted contributions with intervals, measured ones if known, and any probe's values."""
    names = _features(suggestion)
    profile = Profile(
        key="suggestion",
        layers=tuple(layer.layer for layer in suggestion.layers),
        label="contribution (1 = full-parameter gain)",
        predicted={each.layer: each.predicted for each in suggestion.layers},
        intervals={each.layer: each.interval for each in suggestion.layers},
        measured={
            each.layer: (each.measured, None)
            for each in suggestion.layers
            if each.measured is not None
        },
        pick=suggestion.pick,
        lines={"full": 1.0, "base": 0.0},
        others={
            name: {
                each.layer: each.features[name]
                for each in suggestion.layers
                if name in each.features
            }
            for name in names
        },
    )
    choices = {key: heading(name) for key, name in profile.choices.items()}
    tips = {profile.band(each.layer): _tip(suggestion, each) for each in suggestion.layers}
    return Chart(
        f"Layer profile ({suggestion.coverage:.0%} intervals)",
        draw_profile(profile),
        "Point at a layer, or go through them with Tab and the arrow keys. A probe is drawn from "
        "its least to its largest value.",
        tips,
        choices,
    )


def _features(suggestion: Suggestion) -> list[str]:
    """All that were measured, the most telling ones first."""
    first = shown_features(suggestion)
    known = {name for layer in suggestion.layers for name in layer.features}
    return first + sorted(known - set(first))


def _tip(suggestion: Suggestion, layer: LayerSuggestion) -> list[str]:
    low, high = layer.interval
    lines = [
        f"layer {layer.layer}{', the pick' if layer.layer == suggestion.pick else ''}",
        f"predicted {layer.predicted:.2f} ({low:.2f} … {high:.2f})",
        f"chance of being best {layer.chance_best:.0%}",
    ]
    if layer.measured is not None:
        lines.append(f"measured {layer.measured:.2f}")
    shown = [name for name in shown_features(suggestion) if name in layer.features]
    return lines + [f"{heading(name)} {layer.features[name]:.3g}" for name in shown]


def _costs(suggestion: Suggestion) -> Table:
    rows = [
        ("loading", f"{suggestion.cost.load_seconds:.1f} s", "", ""),
        (
            "sampling",
            f"{suggestion.cost.sampling_seconds:.1f} s",
            f"{suggestion.rollouts.tokens:,}",
            "",
        ),
    ]
    rows += [
        (
            f"probe {probe.name}",
            f"{probe.seconds:.1f} s",
            f"{probe.tokens + probe.sampled_tokens:,}",
            f"{probe.peak_bytes / 1e6:,.0f} MB",
        )
        for probe in suggestion.cost.probes
    ]
    return Table("Costs", ("stage", "time", "tokens", "peak memory"), tuple(rows))


def _settings(suggestion: Suggestion) -> dict[str, str]:
    model, task, rollouts = suggestion.model, suggestion.task, suggestion.rollouts
    return {
        "model": model.id,
        **({"revision": model.revision} if model.revision else {}),
        "weights (SHA-256)": model.weights_hash,
        "layers, parameters": f"{model.layers}, {model.parameters:,}",
        "device, format": f"{model.device}, {model.dtype}",
        "task": f"{task.name} ({task.source})",
        **({"prompts": task.prompt_form} if task.prompt_form else {}),
        "algorithm": task.algorithm,
        "rollouts": f"{rollouts.prompts} prompts of {rollouts.group_size} samples, temperature "
        f"{rollouts.temperature:g}, at most {rollouts.max_new_tokens} tokens",
        "seed": str(suggestion.seed),
        "basis": suggestion.basis,
    }
