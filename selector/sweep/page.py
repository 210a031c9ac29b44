"""A measured sweep as a page."""

from __future__ import annotations

from layerpick.calibration.sweeps.measured import Reading
from layerpick.selector.pages.charts import Profile, draw_curves, draw_profile
from layerpick.selector.pages.parts import Chart, Facts, Lines, Page, from_rich, how_made, plain
from layerpick.selector.sweep.report import layers_table, sentences


def sweep_page(reading: Reading) -> Page:
    """The best layer, the profile, all policies, their training, settings."""
    best, *rest = (plain(line) for line in sorted(sentences(reading), key=_is_not_best))
    if reading.refusal is None:
        gained = reading.contribution(reading.best)
        error = "" if gained.error is None else f" ± {gained.error:.2f}"
        best = f"{best} It alone recovers {gained.mean:.2f}{error} of the full-parameter gain."
    settings = reading.settings
    title = f"{settings.model} · {settings.task} · {settings.algorithm} · sweep"
    facts = {name: str(value) for name, value in settings.model_dump().items() if value is not None}
    return Page(
        title,
        best,
        (
            _profile(reading),
            from_rich(layers_table(reading), "All runs"),
            Lines("What to know", tuple(rest)),
            _curves(reading),
            Facts("Settings", facts),
            how_made(),
        ),
    )


def _is_not_best(line: str) -> bool:
    return not line.startswith("[bold]Best")


def _profile(reading: Reading) -> Chart:
    refused = reading.refusal is not None
    values = {
        layer: measured.score if refused else reading.contribution(layer)
        for layer, measured in reading.layers.items()
    }
    full, base = reading.full.score.mean, reading.base.score.mean
    profile = Profile(
        key="sweep",
        layers=tuple(reading.layers),
        label="score" if refused else "contribution (1 = full-parameter gain)",
        measured={layer: (value.mean, value.error) for layer, value in values.items()},
        pick=reading.best,
        pick_name="the best",
        lines={"full": full, "base": base} if refused else {"full": 1.0, "base": 0.0},
    )
    tips = {
        profile.band(layer): [
            f"layer {layer}{', the best' if layer == reading.best else ''}",
            *(
                []
                if refused
                else [f"contribution {values[layer].mean:.2f} ± {values[layer].error or 0:.2f}"]
            ),
            f"score {measured.score.mean:.3f} ± {measured.score.error or 0:.3f}",
            f"{len(measured.seeds)} seed{'s' if len(measured.seeds) > 1 else ''}",
        ]
        for layer, measured in reading.layers.items()
    }
    note = "Point at a layer, or go through them with Tab and the arrow keys. Bars: standard error."
    return Chart("Measured profile", draw_profile(profile), note, tips)


def _curves(reading: Reading) -> Chart:
    curves = {
        "full-parameter": reading.full.curve,
        f"layer {reading.best} (best)": reading.layers[reading.best].curve,
        **{f"layer {k}": each.curve for k, each in reading.layers.items() if k != reading.best},
    }
    strong = [f"layer {reading.best} (best)", "full-parameter"]
    drawn = {name: curve for name, curve in curves.items() if len(curve)}
    note = "Mean training reward of each step over the seeds; thin lines: the other layers."
    return Chart("Training", draw_curves(drawn, "mean reward", strong), note)
