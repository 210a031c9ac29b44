"""A verification as a page."""

from __future__ import annotations

from layerpick.selector.pages.charts import Profile, draw_profile
from layerpick.selector.pages.parts import (
    Chart,
    Facts,
    Lines,
    Page,
    Part,
    from_rich,
    how_made,
    plain,
)
from layerpick.selector.verification.report import headline, layers_table, sentences
from layerpick.selector.verification.result import LayerVerdict, Verification


def verification_page(found: Verification) -> Page:
    """Was the pick right, every layer, and what it rests on."""
    title = f"{found.model} · {found.task} · {found.algorithm} · verification"
    know = Lines("What to know", tuple(plain(line) for line in sentences(found)[1:]))
    return Page(title, headline(found), (*parts(found), know, how_made()))


def parts(found: Verification) -> tuple[Part, ...]:
    """Profile, table and facts, for pages that hold more than this."""
    facts = {
        "picked": found.picked,
        "measured by": found.measured_by,
        "model": found.model,
        "task": found.task,
        "algorithm": found.algorithm,
    }
    rests = Facts("What it rests on", facts)
    if not _is_drawn(found):
        return (rests,)
    return (_profile(found), from_rich(layers_table(found), "Layers"), rests)


def _is_drawn(found: Verification) -> bool:
    return any(layer.interval is not None or layer.measured is not None for layer in found.layers)


def _profile(found: Verification) -> Chart:
    layers = found.layers
    profile = Profile(
        key="verification",
        layers=tuple(each.layer for each in layers),
        label="contribution (1 = full-parameter gain)",
        predicted={each.layer: each.predicted for each in layers if each.predicted is not None},
        intervals={each.layer: each.interval for each in layers if each.interval is not None},
        measured={
            each.layer: (each.measured, each.error) for each in layers if each.measured is not None
        },
        pick=found.pick.layer,
        lines={"full": 1.0, "base": 0.0},
    )
    tips = {profile.band(each.layer): _tip(found, each) for each in layers}
    note = "Point at a layer, or go through them with Tab and the arrow keys."
    return Chart("Predicted and measured", draw_profile(profile), note, tips)


def _tip(found: Verification, layer: LayerVerdict) -> list[str]:
    lines = [f"layer {layer.layer}{', the pick' if layer.layer == found.pick.layer else ''}"]
    if layer.predicted is not None:
        low, high = layer.interval or (layer.predicted, layer.predicted)
        lines.append(f"predicted {layer.predicted:.2f} ({low:.2f} … {high:.2f})")
    if layer.measured is not None:
        error = "" if layer.error is None else f" ± {layer.error:.2f}"
        lines.append(f"measured {layer.measured:.2f}{error}")
    if layer.held is not None:
        lines.append("interval held" if layer.held else "interval did not hold")
    return lines
