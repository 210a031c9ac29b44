"""An evaluation as a page."""

from __future__ import annotations

from layerpick.selector.evaluation.report import all_tables, sentences
from layerpick.selector.evaluation.run import Evaluated
from layerpick.selector.pages.charts import draw_bars
from layerpick.selector.pages.parts import Chart, Lines, Page, from_rich, how_made, plain


def evaluation_page(evaluated: Evaluated) -> Page:
    """How well left-out models are predicted, beside other rankings."""
    found = evaluated.evaluation
    models = len({example.weights_hash for example in found.examples})
    best = max(found.levels, key=lambda name: found.levels[name].means["spearman"].mean)
    rank, regret = (found.levels[best].means[name] for name in ("spearman", "regret"))
    headline = (
        f"On {len(found.examples)} sweeps of {models} models, each {found.by} left out in turn, "
        f"{best} ranks layers with ρ = {rank.mean:.2f} ± {rank.error:.2f}; its picks lose "
        f"{regret.mean:.2f} ± {regret.error:.2f} of contribution."
    )
    lines = tuple(plain(line) for line in sentences(evaluated))
    tables = tuple(from_rich(table) for table in all_tables(found))
    return Page(
        f"Evaluation, one {found.by} out",
        headline,
        (_regrets(evaluated), *tables, Lines("Notes", lines), how_made()),
    )


def _regrets(evaluated: Evaluated) -> Chart:
    found = evaluated.evaluation
    levels = {name: level.means["regret"] for name, level in found.levels.items()}
    others = {name: means["regret"] for name, means in found.baselines.items()}
    everything = {**levels, **others}
    shown = dict(sorted(everything.items(), key=lambda item: item[1].mean))
    tips = {
        f"regret-{index}": [name, f"regret {value.mean:.3f} ± {value.error:.3f}"]
        for index, (name, value) in enumerate(shown.items())
    }
    bars = {name: (value.mean, value.error) for name, value in shown.items()}
    return Chart(
        "What a pick loses",
        draw_bars("regret", bars, "mean regret of the pick (contribution lost)"),
        "Bars: standard error over models.",
        tips,
    )
