"""Probes from cheap to dear, until the time is spent or nothing tells more.

The first level is always measured. A dearer one follows while its expected time fits what is left.
Where probes are dear by layer, only layers that may still be best go on: at most half of those that
were measured before. A person who has waited long enough presses Ctrl-C, and is answered with what
is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from layerpick.calibration.predictors.base import LayerFeatures, Prediction, Predictor
from layerpick.calibration.predictors.halving import join, still_possible
from layerpick.calibration.predictors.levels import FIRST, LEVELS, Level
from layerpick.calibration.predictors.position import load_position_predictor
from layerpick.calibration.predictors.stored import StoredPredictor, best_predictor
from layerpick.probes.base import ProbeInput
from layerpick.selector.progress import Reporter, in_time
from layerpick.selector.suggestion.budget import Spending
from layerpick.selector.suggestion.expected import (
    Timing,
    is_whole,
    levels_that_tell_more,
    missing,
    time_passes,
)
from layerpick.selector.suggestion.probing import Probed, kind_of, run_probes


@dataclass(frozen=True)
class Climbed:
    """What came of it."""

    probed: Probed
    prediction: Prediction
    predictor: Predictor
    """Whose the prediction is; where layers left on the way, those that stayed."""
    stopped: str | None = None
    """Why nothing more was measured; None where probes were named."""


def climb(
    probe_input: ProbeInput,
    sampled: Probed,
    spending: Spending,
    predictors: Mapping[str, StoredPredictor],
    reporter: Reporter,
) -> Climbed:
    """Measure level after level; see the module."""
    start = time.perf_counter() - sampled.sampling_seconds
    timing = time_passes(probe_input, sampled.sampling_seconds)
    limit = spending.seconds(probe_input, timing.sampling, timing.forward)
    levels = levels_that_tell_more(predictors, kind_of(probe_input.model))
    reporter.note(_plan(probe_input, levels, timing, limit))
    probed = replace(sampled, results=run_probes(probe_input, LEVELS[FIRST].probes, reporter))
    predictor = find_predictor(probe_input, probed, predictors)
    prediction = predictor.predict(layer_features(probe_input, probed), probe_input.seed)

    def ended(why: str) -> Climbed:
        return Climbed(probed, prediction, predictor, why)

    kept: tuple[int, ...] | None = None
    for level in levels:
        chance = float(prediction.chance_best.max())
        if chance >= spending.confidence:
            return ended(f"certain enough, {chance:.0%}")
        going = still_possible(prediction, kept) if level.halved else None
        remaining = limit - (time.perf_counter() - start)
        candidates = going or range(probe_input.layer_count)
        cost = timing.of(level, probe_input, probed.results, candidates)
        if cost > remaining:
            left = f"of the {in_time(limit)} allowed, {in_time(max(remaining, 0))} are left"
            return ended(f"{left}, and the level {level.name} needs about {in_time(cost)}")
        asked = replace(probe_input, candidates=going)
        try:
            results = run_probes(asked, missing(level, probed.results), reporter)
        except KeyboardInterrupt:
            return ended(f"by Ctrl-C, while measuring {level.name}")
        kept = going or kept
        probed = replace(probed, results={**probed.results, **results})
        predictor = find_predictor(probe_input, probed, predictors)
        after = predictor.predict(layer_features(probe_input, probed), probe_input.seed)
        prediction = join(prediction, after, going)
    return ended("nothing dearer tells more")


def measure(
    probe_input: ProbeInput,
    sampled: Probed,
    probes: Sequence[str],
    predictors: Mapping[str, StoredPredictor],
    reporter: Reporter,
) -> Climbed:
    """Just these probes, and what they allow to predict."""
    probed = replace(sampled, results=run_probes(probe_input, probes, reporter))
    predictor = find_predictor(probe_input, probed, predictors)
    prediction = predictor.predict(layer_features(probe_input, probed), probe_input.seed)
    return Climbed(probed, prediction, predictor)


def find_predictor(
    probe_input: ProbeInput, probed: Probed, predictors: Mapping[str, StoredPredictor]
) -> Predictor:
    """The dearest predictor that the features allow; position alone where there is none."""
    own, population = probe_input.model.identity.weights_hash, kind_of(probe_input.model)
    found = best_predictor(predictors, probed.features, population, own)
    return load_position_predictor() if found is None else found


def layer_features(probe_input: ProbeInput, probed: Probed) -> LayerFeatures:
    """What is known of the layers."""
    return LayerFeatures(
        probe_input.model.layers.depths,
        probed.features,
        probed.rollouts.mean_reward,
        kind_of(probe_input.model),
    )


def further_levels(
    probe_input: ProbeInput, probed: Probed, predictors: Mapping[str, StoredPredictor]
) -> dict[str, float]:
    """Levels that tell more and were not measured: the seconds that each would still take.

    None where the first level is not measured whole.
    """
    levels = [
        level
        for level in levels_that_tell_more(predictors, kind_of(probe_input.model))
        if missing(level, probed.results)
    ]
    if not levels or not is_whole(probed.results):
        return {}
    timing = time_passes(probe_input, probed.sampling_seconds)
    half = range(0, probe_input.layer_count, 2)
    return {level.name: timing.of(level, probe_input, probed.results, half) for level in levels}


def _plan(probe_input: ProbeInput, levels: Sequence[Level], timing: Timing, limit: float) -> str:
    """The levels and when each will be there, from now."""
    measured: list[str] = []
    told, spent, apart = [], 0.0, 1
    for level in (LEVELS[FIRST], *levels):
        apart *= 2 if level.halved else 1
        candidates = range(0, probe_input.layer_count, apart)
        spent += timing.of(level, probe_input, measured, candidates)
        measured += missing(level, measured)
        told.append(f"{level.name} after {in_time(spent)}")
    return (
        f"Plan: {', '.join(told)}, at most {in_time(limit)} (--budget); Ctrl-C answers with what "
        f"is there by then."
    )
