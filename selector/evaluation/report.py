"""An evaluation as tables and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from layerpick.calibration.judging.accuracy import METRICS, Estimate
from layerpick.calibration.judging.evaluation import Evaluation, LevelAccuracy
from layerpick.calibration.predictors.base import Prediction
from layerpick.calibration.predictors.intervals import COVERAGE
from layerpick.calibration.predictors.losses import HELD
from layerpick.calibration.predictors.rates import RatesJudged
from layerpick.calibration.sweeps.examples import Example
from layerpick.selector.evaluation.run import Evaluated

WIDTH = 160
DEFAULT = "as it comes"
"""`layerpick suggest` without options."""
_RANKING = {
    "spearman": "ρ",
    "kendall": "τ",
    "spearman_without_depth": "ρ, no depth",
    "kendall_without_depth": "τ, no depth",
    "regret": "regret",
    "share_lost": "share lost",
    "pick_is_equal": "good pick",
    "top3_recall": "top 3 found",
}


def print_evaluation(evaluated: Evaluated, console: Console) -> None:
    """For each population: means beside the baselines, differences from these, every sweep."""
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    for population, found in evaluated.evaluations.items():
        console.rule(f"{population} models".capitalize())
        for table in all_tables(found):
            console.print(table)
        for line in sentences(found):
            console.print(line, soft_wrap=True, highlight=False)
    for line in rate_sentences(evaluated.rates):
        console.print(line, soft_wrap=True, highlight=False)


def rate_sentences(judged: RatesJudged | None) -> list[str]:
    """What layers gain at the learning rate that is advised, if that is known."""
    if judged is None:
        return []
    return [
        f"Learning rates advised, {judged.sweeps} sweeps at several rates, models left out: layers "
        f"that may be picked reach {judged.advised:.2f} of what they gain at the best rate, and "
        f"{judged.usual:.2f} at the usual rate for the model's size."
    ]


def all_tables(found: Evaluation) -> list[Table]:
    """Means beside the baselines, what was said, costs, differences, every sweep."""
    return [
        ranking_table(found),
        answer_table(found),
        cost_table(found),
        _differences(found),
        _sweeps(found),
    ]


def sentences(found: Evaluation) -> list[str]:
    """The noise ceiling, what each level reaches of it, and what is missing."""
    models = len({example.weights_hash for example in found.examples})
    lines = [
        f"{len(found.examples)} sweeps of {models} models. ± is a standard error over models "
        f"(bootstrap). No depth: once a quadratic in depth is removed. Good pick: cannot be told "
        f"from the best layer. Share lost: of the best layer's gain, by the pick. Intervals are "
        f"meant to cover {COVERAGE:.0%}. As it comes: `layerpick suggest` without options, where "
        f"time allows every level that tells more."
    ]
    ranked = sum(example.stands_in for example in found.examples)
    if ranked:
        lines.append(
            f"{ranked} of them have no contributions, because full-parameter RL gained nothing "
            f"sure: their layers are ranked, but count neither for regret nor for intervals."
        )
    ceiling = found.noise_ceiling
    if ceiling is not None:
        lines.append(
            f"Noise ceiling: a sweep repeated with another seed ranks the layers with ρ = "
            f"{number(ceiling)} of the first ({ceiling.sweeps} sweeps)."
        )
        lines += [
            f"{name} reaches {level.share_of_ceiling:.2f} of it."
            for name, level in found.levels.items()
            if level.share_of_ceiling is not None
        ]
    for name, level in found.levels.items():
        if level.lacking:
            lines.append(
                f"{name}: {len(level.lacking)} features left out, because not every model has them."
            )
    lines += [f"Not evaluated: {escape(note)}" for note in found.notes]
    return lines


def to_json(evaluated: Evaluated) -> str:
    """Everything, per sweep too."""
    found = {
        "metrics": METRICS,
        "populations": {name: _evaluation(each) for name, each in evaluated.evaluations.items()},
        "rates": None if evaluated.rates is None else asdict(evaluated.rates),
        "sweeps_left_out": evaluated.left_out,
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _evaluation(found: Evaluation) -> dict[str, Any]:
    return {
        "left_out_by": found.by,
        "sweeps": len(found.examples),
        "noise_ceiling": _dict(found.noise_ceiling),
        "levels": {name: _level(level) for name, level in found.levels.items()},
        "default": _means(found.climbed),
        "baselines": {name: _means(means) for name, means in found.baselines.items()},
        "notes": found.notes,
    }


def ranking_table(found: Evaluation) -> Table:
    """One line per level and baseline: how well it ranks."""
    title = f"Mean over left-out sweeps (one {found.by} out)"
    table = _table(title, "ranking", *_RANKING.values())
    for name, means in _answers(found):
        table.add_row(name, *(number(means.get(m)) for m in _RANKING), style="bold")
    table.add_section()
    for name, means in found.baselines.items():
        table.add_row(name, *(number(means.get(metric)) for metric in _RANKING))
    return table


def answer_table(found: Evaluation) -> Table:
    """One line per level: what was said of the pick, beside what it lost."""
    table = _table(
        f"What is said of the pick: loss expected and realised, bound and shortlist ({HELD:.0%})",
        "level",
        "expected loss",
        "realised",
        "bound held",
        "shortlist",
        "best in it",
    )
    columns = ("expected_loss", "regret", "loss_held", "shortlist", "shortlist_held")
    for name, means in _answers(found):
        table.add_row(name, *(number(means.get(metric)) for metric in columns))
    return table


def _answers(found: Evaluation) -> list[tuple[str, Mapping[str, Estimate]]]:
    """What the levels say, and `layerpick suggest` as it comes."""
    levels = [(name, level.means) for name, level in found.levels.items()]
    return [*levels, (DEFAULT, found.climbed)] if found.climbed else levels


def cost_table(found: Evaluation) -> Table:
    """One line per level: its intervals, and what it costs."""
    table = _table(
        "Intervals, and cost as share of the sweep replaced",
        "level",
        "coverage",
        "width",
        "tokens written",
        "time",
    )
    for name, level in found.levels.items():
        intervals = [number(level.means.get(metric)) for metric in ("coverage", "width")]
        table.add_row(name, *intervals, _share(level.token_share), _share(level.time_share))
    return table


def number(estimate: Estimate | None) -> str:
    """Mean ± standard error."""
    return "" if estimate is None else f"{estimate.mean:.2f} ± {estimate.error:.2f}"


def _differences(found: Evaluation) -> Table:
    measures = ("spearman", "regret", "share_lost")
    headings = [f"{name}: ρ / regret / share lost" for name in found.levels]
    table = _table("Predictor − baseline, paired by sweep", "baseline", *headings)
    for baseline in found.baselines:
        gaps = [level.against.get(baseline, {}) for level in found.levels.values()]
        cells = ("\n".join(_signed(each.get(name)) for name in measures) for each in gaps)
        table.add_row(baseline, *cells)
    return table


def _sweeps(found: Evaluation) -> Table:
    headings = [
        "layers",
        "ceiling",
        "best",
        *(f"{name}: ρ / regret / lost / held" for name in found.levels),
    ]
    table = _table("Every sweep", "model · task · algorithm", *headings)
    names = Counter(example.name for example in found.examples)
    for example in found.examples:
        # A model may be swept on several data sets of one task.
        source = f" ({example.source})" if names[example.name] > 1 else ""
        table.add_row(
            escape(example.name + source),
            str(len(example.measured)),
            "" if example.noise_ceiling is None else f"{example.noise_ceiling:.2f}",
            ", ".join(map(str, sorted(example.best))),
            *(_verdict(level, example) for level in found.levels.values()),
        )
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _verdict(level: LevelAccuracy, example: Example) -> str:
    if example not in level.held_out:
        return ""
    verdict = level.held_out[example].verdict
    shown = {"spearman": ".2f", "regret": ".2f", "share_lost": ".2f", "coverage": ".0%"}
    cells = (f"{verdict[name]:{how}}" if name in verdict else "–" for name, how in shown.items())
    return " / ".join(cells)


def _pick(example: Example, prediction: Prediction) -> int:
    """The measured layer with the highest prediction."""
    return int(example.measured[prediction.contribution[example.measured].argmax()])


def _level(level: LevelAccuracy) -> dict[str, Any]:
    return {
        "about": level.level.about,
        "probes": level.level.probes,
        "means": _means(level.means),
        "share_of_noise_ceiling": level.share_of_ceiling,
        "token_share": _dict(level.token_share),
        "time_share": _dict(level.time_share),
        "minus_baseline": {name: _means(gaps) for name, gaps in level.against.items()},
        "features_left_out": level.lacking,
        "sweeps": [
            {
                "model": example.model,
                "family": example.family,
                "task": example.task,
                "source": example.source,
                "rates": example.rates,
                "algorithm": example.algorithm,
                "noise_ceiling": example.noise_ceiling,
                "ranked_only": example.stands_in,
                "lesson": str(held.predictor.lesson),
                "basis": held.prediction.basis,
                "pick": _pick(example, held.prediction),
                "cannot_be_told_from_best": sorted(example.best),
                **held.verdict,
                "layers": [
                    {
                        "layer": layer,
                        "measured": float(example.contributions[layer]),
                        "error": float(example.errors[layer]),
                        "predicted": float(held.prediction.contribution[layer]),
                        "interval": [
                            float(held.prediction.low[layer]),
                            float(held.prediction.high[layer]),
                        ],
                        "chance_best": float(held.prediction.chance_best[layer]),
                    }
                    for layer in example.measured.tolist()
                ],
            }
            for example, held in level.held_out.items()
        ],
    }


def _means(means: Mapping[str, Estimate]) -> dict[str, Any]:
    return {metric: asdict(estimate) for metric, estimate in means.items()}


def _dict(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else asdict(estimate)


def _share(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.mean:.1%} ± {estimate.error:.1%}"


def _signed(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.mean:+.2f} ± {estimate.error:.2f}"
