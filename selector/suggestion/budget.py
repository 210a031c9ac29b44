"""Spend a budget on probes, from cheap to dear, until the pick is certain enough.

The cheap probes come first. A dearer level follows only while the chance that the pick is the best
layer is too low and its expected time fits what is left of the budget. The on-policy warm-up trains
only the layers that can still be best: at most half, those with the highest chances.

Limits: expected times are passes over the rollouts times what one of them takes, so a budget can
be overrun by the part of a level that this misses. A layer that a warm-up leaves out
keeps the prediction it had.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch

from layerpick.calibration.predictors.base import LayerFeatures, Prediction
from layerpick.calibration.predictors.levels import LEVELS, Level
from layerpick.calibration.predictors.position import load_position_predictor
from layerpick.calibration.predictors.stored import StoredPredictor, best_predictor
from layerpick.probes.base import WITH_BACKWARD, Pace, ProbeInput
from layerpick.probes.table import find_probe
from layerpick.probes.trials.prefixes import texts
from layerpick.selector.progress import Reporter
from layerpick.selector.suggestion.probing import Probed, kind_of, run_probes
from layerpick.training.batches.packed import packed_log_probs
from layerpick.training.errors import LayerpickError

RATES_LEVEL = "one_step"
"""The level whose probes advise a learning rate."""
SWEEP_EPISODES = 60 * 128
"""Of one run of a sweep, at `layerpick sweep`'s own steps, prompts and group size."""
FIRST = "backward"
"""The level that is measured whatever the budget."""
OUT_OF_THE_QUESTION = 0.02
"""Chances of being best that together are given up."""


@dataclass(frozen=True)
class Spending:
    """What a person is willing to spend, and when to stop earlier."""

    amount: float
    """Minutes, or a share of a sweep's time."""
    is_share: bool
    confidence: float = 0.9
    """Chance of being best that is certain enough."""


@dataclass(frozen=True)
class Spent:
    """What came of it."""

    probed: Probed
    prediction: Prediction
    stopped: str | None
    """Why nothing more was measured; None where no budget was given."""


def read_budget(text: str, confidence: float) -> Spending:
    """`10` (minutes) or `5%` (of the time of a sweep). Raises LayerpickError for anything else."""
    number = text.removesuffix("%")
    try:
        amount = float(number)
    except ValueError:
        amount = 0.0
    if not 0 < amount < float("inf"):
        raise LayerpickError(
            f"--budget '{text}' is neither minutes, as 10, nor a share of a sweep's time, as 5%."
        )
    share = number != text
    return Spending(amount / 100 if share else amount, share, confidence)


def spend(
    shared: ProbeInput,
    sampled: Probed,
    spending: Spending,
    predictors: Mapping[str, StoredPredictor],
    reporter: Reporter,
) -> Spent:
    """Measure level after level; see the module."""
    start = time.perf_counter() - sampled.sampling_seconds
    probed = replace(sampled, results=run_probes(shared, LEVELS[FIRST].probes, reporter))
    prediction = predict(shared, probed, predictors)
    forward = forward_seconds(shared)
    seconds = _seconds(spending, shared, sampled.sampling_seconds + WITH_BACKWARD * forward)
    for level in list(LEVELS.values())[list(LEVELS).index(FIRST) + 1 :]:
        chance = float(prediction.chance_best.max())
        if chance >= spending.confidence:
            return Spent(probed, prediction, f"certain enough, {chance:.0%}")
        if not _tells_more(level, shared, predictors):
            continue
        remaining = seconds - (time.perf_counter() - start)
        cost = _expected_seconds(level, shared, probed, forward)
        if cost > remaining:
            reason = f"the budget of {seconds:.0f} s leaves {max(remaining, 0):.0f} s"
            about = f"the level {level.name} needs about {cost:.0f} s"
            return Spent(probed, prediction, f"{reason}, {about}")
        wanted = _missing(level, probed)
        dear = any(find_probe(name).of_candidates for name in wanted)
        candidates = still_possible(prediction) if dear else None
        asked = replace(shared, candidates=candidates)
        results = {**probed.results, **run_probes(asked, wanted, reporter)}
        probed = replace(probed, results=results)
        prediction = merge(prediction, predict(shared, probed, predictors), candidates)
    return Spent(probed, prediction, "nothing dearer is left to measure")


def predict(
    shared: ProbeInput, probed: Probed, predictors: Mapping[str, StoredPredictor]
) -> Prediction:
    """By the dearest predictor that the features allow.

    From position alone where there is none.
    """
    own, population = shared.model.identity.weights_hash, kind_of(shared.model)
    asked = LayerFeatures(
        shared.model.layers.depths, probed.features, probed.rollouts.mean_reward, population
    )
    predictor = best_predictor(predictors, probed.features, population, own)
    if predictor is None:
        return load_position_predictor().predict(asked, shared.seed)
    return predictor.predict(asked, shared.seed)


def still_possible(prediction: Prediction) -> tuple[int, ...]:
    """Layers that can still be best: at most half, at least two, in order of depth.

    The others' chances of being best together stay below `OUT_OF_THE_QUESTION`, unless that would
    keep more than half.
    """
    order = np.argsort(-prediction.chance_best, kind="stable")
    sums = np.cumsum(prediction.chance_best[order])
    enough = int(np.searchsorted(sums, 1 - OUT_OF_THE_QUESTION)) + 1
    kept = max(2, min(enough, most_candidates(len(order))))
    return tuple(sorted(order[:kept].tolist()))


def merge(before: Prediction, after: Prediction, candidates: tuple[int, ...] | None) -> Prediction:
    """`after` for the candidates, `before` for the layers that were left out.

    Chances of the candidates are those of `after`, scaled to what `before` gave them together.
    """
    if candidates is None:
        return after
    chosen = np.isin(np.arange(len(after.contribution)), candidates)
    chances = np.where(chosen, after.chance_best, 0.0)
    share = before.chance_best[chosen].sum()
    total = chances.sum()
    chances = np.where(chosen, chances * share / total if total else 0.0, before.chance_best)
    return replace(
        after,
        contribution=np.where(chosen, after.contribution, before.contribution),
        low=np.where(chosen, after.low, before.low),
        high=np.where(chosen, after.high, before.high),
        chance_best=chances / chances.sum(),
    )


def _seconds(spending: Spending, shared: ProbeInput, step_seconds: float) -> float:
    if not spending.is_share:
        return 60 * spending.amount
    runs = shared.layer_count + 1
    steps = runs * SWEEP_EPISODES / len(shared.rollouts.trajectories)
    return spending.amount * steps * step_seconds


def forward_seconds(shared: ProbeInput) -> float:
    """Seconds of a forward pass over the rollouts, timed on the first batch of them."""
    rollouts = shared.rollouts
    text = next(texts(shared, range(len(rollouts.groups)), shared.model.dtype))
    start = time.perf_counter()
    with torch.no_grad():
        temperature = rollouts.origin.temperature or 1.0
        packed_log_probs(shared.model.model, text.batch, temperature).sum().item()
    seconds = time.perf_counter() - start
    return seconds * len(rollouts.trajectories) / len(text.trajectories)


def _expected_seconds(level: Level, shared: ProbeInput, probed: Probed, forward: float) -> float:
    """What is missing of a level takes; `forward`: seconds of a forward pass over the rollouts."""
    pace = Pace(forward, probed.sampling_seconds, most_candidates(shared.layer_count))
    return sum(find_probe(name)().seconds(shared, pace) for name in _missing(level, probed))


def _missing(level: Level, probed: Probed) -> list[str]:
    return [name for name in level.probes if name not in probed.results]


def further_levels(
    shared: ProbeInput, probed: Probed, predictors: Mapping[str, StoredPredictor]
) -> dict[str, float]:
    """Levels that have a predictor and were not measured: the seconds that each would still take.

    Rough, and none where the first level is not measured whole.
    """
    if not set(LEVELS[FIRST].probes) <= set(probed.results):
        return {}
    forward = forward_seconds(shared)
    return {
        name: _expected_seconds(level, shared, probed, forward)
        for name, level in LEVELS.items()
        if _tells_more(level, shared, predictors) and not set(level.probes) <= set(probed.results)
    }


def _tells_more(
    level: Level, shared: ProbeInput, predictors: Mapping[str, StoredPredictor]
) -> bool:
    """Whether a level ranks otherwise than the first one does, or advises a learning rate."""
    if level.name not in predictors:
        return False
    lesson = predictors[level.name].lessons[kind_of(shared.model)].lesson
    return not lesson.known_before or level.name == RATES_LEVEL


def most_candidates(layers: int) -> int:
    """How many layers a warm-up may have to train."""
    return max(2, ceil(layers / 2))
