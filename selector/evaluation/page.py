"""An evaluation as a page."""

from __future__ import annotations

from layerpick.calibration.judging.evaluation import Evaluation
from layerpick.selector.evaluation.report import all_tables, number, rate_sentences, sentences
from layerpick.selector.evaluation.run import Evaluated
from layerpick.selector.pages.charts import draw_bars
from layerpick.selector.pages.parts import Chart, Lines, Page, Part, from_rich, how_made, plain


def evaluation_page(evaluated: Evaluated) -> Page:
    """How well left-out models are predicted, beside other rankings."""
    parts: list[Part] = []
    for population, found in evaluated.evaluations.items():
        lines = tuple(plain(line) for line in sentences(found))
        parts += [_losses(population, found), *map(from_rich, all_tables(found))]
        parts.append(Lines(f"Notes on {population} models", lines))
    advised = rate_sentences(evaluated.rates)
    parts += [Lines("Learning rates", tuple(map(plain, advised)))] if advised else []
    first, found = next(iter(evaluated.evaluations.items()))
    models = len({example.weights_hash for example in found.examples})
    best = max(found.levels, key=lambda name: found.levels[name].means["spearman"].mean)
    means = found.levels[best].means
    headline = (
        f"On {len(found.examples)} sweeps of {models} {first} models, each {found.by} left out in "
        f"turn, {best} ranks layers with ρ = {number(means['spearman'])}; its picks lose "
        f"{number(means.get('share_lost'))} of what the best layer gains."
    )
    return Page(f"Evaluation, one {found.by} out", headline, (*parts, how_made()))


def _losses(population: str, found: Evaluation) -> Chart:
    judged = {name: level.means for name, level in found.levels.items()} | dict(found.baselines)
    everything = {name: m["share_lost"] for name, m in judged.items() if "share_lost" in m}
    shown = dict(sorted(everything.items(), key=lambda item: item[1].mean))
    identity = population.replace(" ", "-")
    tips = {
        f"{identity}-{index}": [name, f"share lost {value.mean:.3f} ± {value.error:.3f}"]
        for index, (name, value) in enumerate(shown.items())
    }
    bars = {name: (value.mean, value.error) for name, value in shown.items()}
    return Chart(
        f"What a pick loses, {population} models",
        draw_bars(identity, bars, "mean share of the best layer's gain lost", found.levels),
        "Green: this package's levels. Bars: standard error over models.",
        tips,
    )
