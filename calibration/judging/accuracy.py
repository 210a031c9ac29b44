"""How accurate rankings of layers were, sweep by sweep and in the mean.

Means are over sweeps. Their errors come from drawing whole models anew (2,000 bootstrap samples),
because sweeps of one model are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerpick.calibration.judging import metrics
from layerpick.calibration.predictors.base import Prediction
from layerpick.calibration.predictors.losses import shortlist
from layerpick.calibration.sweeps.examples import Example

Ranking = Callable[[Example], np.ndarray]
"""Scores of an example's layers (layers,), higher is better; KeyError without what it needs."""

RESAMPLES = 2000
INTERVAL = 0.95
METRICS: dict[str, str] = {
    "spearman": "rank correlation ρ",
    "kendall": "rank correlation τ",
    "spearman_without_depth": "ρ once a quadratic in depth is removed",
    "kendall_without_depth": "τ once a quadratic in depth is removed",
    "regret": "max C − C(pick)",
    "share_lost": "share of the best layer's gain that the pick loses",
    "pick_is_equal": "pick cannot be told from the best",
    "top3_recall": "share of the three best among the three predicted",
    "coverage": "share of layers within their interval",
    "width": "mean width of the intervals",
    "expected_loss": "what the pick was expected to lose",
    "loss_held": "share of picks that lost no more than their bound",
    "shortlist": "layers in the shortlist",
    "shortlist_held": "share of shortlists that hold the best layer",
}
IN_CONTRIBUTION = ("regret", "coverage", "width", "expected_loss", "loss_held")


@dataclass(frozen=True)
class Estimate:
    """A mean over sweeps."""

    mean: float
    error: float
    """Standard error, by bootstrap over models."""
    low: float
    high: float
    """95 % bootstrap interval."""
    sweeps: int


Verdict = Mapping[str, float]
"""One ranking of one sweep, by metric; metrics that a sweep does not allow are absent."""


def judge(example: Example, scores: np.ndarray, prediction: Prediction | None = None) -> Verdict:
    """Compare scores of all layers (layers,) with what was measured.

    With a prediction, its intervals are judged too. What is in units of contribution is absent
    where the best layer's gain stands for that of full-parameter RL.
    """
    layers = example.measured
    measured, predicted = example.contributions[layers], scores[layers]
    verdict = {
        "spearman": metrics.spearman(measured, predicted),
        "kendall": metrics.kendall(measured, predicted),
        "regret": metrics.regret(measured, predicted),
        "pick_is_equal": metrics.pick_in(example.best, layers, predicted),
        "top3_recall": metrics.top_recall(measured, predicted),
    }
    lost = metrics.share_lost(measured, predicted)
    if lost is not None:
        verdict["share_lost"] = lost
    depth = example.layer_features().depth[layers]
    rest = [metrics.without_depth(values, depth) for values in (measured, predicted)]
    if rest[0] is not None and rest[1] is not None:
        verdict["spearman_without_depth"] = metrics.spearman(rest[0], rest[1])
        verdict["kendall_without_depth"] = metrics.kendall(rest[0], rest[1])
    if prediction is not None:
        low, high = prediction.low[layers], prediction.high[layers]
        verdict["coverage"] = float(((low <= measured) & (measured <= high)).mean())
        verdict["width"] = float((high - low).mean())
        verdict.update(_answer(prediction.only(layers), measured))
    if example.stands_in:
        return {name: value for name, value in verdict.items() if name not in IN_CONTRIBUTION}
    return verdict


def _answer(asked: Prediction, measured: np.ndarray) -> Verdict:
    """What was said of the pick, against measured contributions (layers,) of the same layers."""
    near = shortlist(asked.chance_best)
    return {
        "expected_loss": asked.expected_loss,
        "loss_held": float(metrics.regret(measured, asked.contribution) <= asked.loss_bound),
        "shortlist": float(len(near)),
        "shortlist_held": float(int(measured.argmax()) in near),
    }


def judge_ranking(ranking: Ranking, examples: Sequence[Example]) -> dict[Example, Verdict]:
    """Verdicts of a ranking on those examples that have the features it needs."""
    found = {}
    for example in examples:
        try:
            scores = ranking(example)
        except KeyError:
            continue
        found[example] = judge(example, scores)
    return found


def estimate(values: Mapping[Example, float], seed: int = 0) -> Estimate | None:
    """Mean over sweeps with its bootstrap error; None without values."""
    if not values:
        return None
    models = [example.weights_hash for example in values]
    return mean_over_models(np.array(list(values.values())), models, seed)


def mean_over_models(numbers: np.ndarray, models: Sequence[str], seed: int = 0) -> Estimate:
    """Mean of numbers (sweeps,), with the bootstrap error of drawing whole models anew."""
    _, own = np.unique(np.array(models), return_inverse=True)
    sums, counts = np.bincount(own, weights=numbers), np.bincount(own)
    count = len(counts)
    drawn = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=RESAMPLES
    )
    means = (drawn @ sums) / (drawn @ counts)
    tail = (1 - INTERVAL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(
        float(numbers.mean()), float(means.std()), float(low), float(high), len(numbers)
    )


def summarise(verdicts: Mapping[Example, Verdict]) -> dict[str, Estimate]:
    """Mean of every metric over the sweeps that allow it."""
    found = {
        metric: estimate({e: v[metric] for e, v in verdicts.items() if metric in v})
        for metric in METRICS
    }
    return {metric: value for metric, value in found.items() if value is not None}


def compare(
    first: Mapping[Example, Verdict], second: Mapping[Example, Verdict]
) -> dict[str, Estimate]:
    """First − second, paired by sweep, of every metric that both have."""
    differences = {
        example: {
            metric: value - second[example][metric]
            for metric, value in verdict.items()
            if metric in second[example]
        }
        for example, verdict in first.items()
        if example in second
    }
    return summarise(differences)
