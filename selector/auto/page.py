"""The whole way as a page: suggested, trained, scored, verified."""

from __future__ import annotations

from pathlib import Path

from layerpick.selector.auto.run import Outcome
from layerpick.selector.pages.charts import draw_curves
from layerpick.selector.pages.parts import Chart, Facts, Lines, Page, from_rich, how_made, plain
from layerpick.selector.race.page import arms_chart
from layerpick.selector.race.report import arms_table
from layerpick.selector.suggestion.page import profile_chart
from layerpick.selector.suggestion.report import ranking_table
from layerpick.selector.training_run.report import sentences
from layerpick.selector.training_run.run import TrainedRun
from layerpick.selector.verification.page import parts
from layerpick.selector.verification.report import sentences as verdict_sentences


def auto_page(outcome: Outcome) -> Page:
    """What was gained, how it was trained, what was predicted, and how to make it again."""
    picked, full, suggestion = outcome.picked, outcome.full, outcome.suggestion
    description = picked.folder.description()
    lines = [plain(line) for run in (picked, full) if run for line in sentences(run)]
    lines += [plain(line) for line in verdict_sentences(outcome.verification)]
    advice = (
        (profile_chart(suggestion), from_rich(ranking_table(suggestion), "Ranking"))
        if suggestion
        else ()
    )
    raced = picked.race
    race = (arms_chart(raced.result), from_rich(arms_table(raced.result), "Arms")) if raced else ()
    facts = {
        "chosen by": picked.strategy.chosen,
        "learning rate": f"{description.learning_rate:g}",
        "seed": str(description.seed),
        **{
            name: str(value)
            for name, value in description.settings.model_dump().items()
            if value is not None
        },
    }
    settings = description.settings
    return Page(
        f"{Path(settings.model).name} · {settings.task} · {settings.algorithm} · auto",
        outcome.headline,
        (
            Lines("What was done", tuple(lines)),
            *race,
            _training(picked, full),
            *parts(outcome.verification),
            *advice,
            Facts("Settings", facts),
            Facts("Versions", picked.result.versions),
            how_made(),
        ),
    )


def _training(picked: TrainedRun, full: TrainedRun | None) -> Chart:
    runs = {picked.strategy.in_words: picked, **({"all parameters": full} if full else {})}
    curves = {
        name: [float(step.values.get("reward", 0.0)) for step in run.folder.metrics()]
        for name, run in runs.items()
    }
    drawn = draw_curves(curves, "mean reward", list(curves))
    return Chart("Training", drawn, "Mean reward of each step's rollouts.")
