"""Probes from cheap to dear, until the time is spent or nothing tells more.

The first level is always measured. A dearer one follows while its expected time fits what is left.
Where probes are dear by layer, layers that cannot be best any more leave. A person who has waited
long enough presses Ctrl-C, and is answered with what is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from layerpick.calibration.predictors.base import LayerFeatures, Prediction, Predictor
from layerpick.calibration.predictors.levels import FIRST, LEVELS, Level
from layerpick.calibration.predictors.losses import shortlist
from layerpick.calibration.predictors.narrowing import join, still_possible
from layerpick.calibration.predictors.position import load_position_predictor
from layerpick.calibration.predictors.rates import PROBE as RATES_PROBE
from layerpick.calibration.predictors.stored import StoredPredictor, best_predictor
from layerpick.probes.base import ProbeInput, ProbeResult
from layerpick.probes.table import find_probe
from layerpick.selector.progress import Reporter, in_time
from layerpick.selector.suggestion.budget import Spending
from layerpick.selector.suggestion.expected import (
    Timing,
    levels_that_tell_more,
    missing,
    time_passes,
)
from layerpick.selector.suggestion.probing import Probed, kind_of, run_probes
from layerpick.selector.suggestion.rate import rates_for

ADVISED_FROM = 128
"""Trajectories that a rate is advised from: as many as where the advice was learned."""


@dataclass(frozen=True)
class Climbed:
    """What came of it."""

    probed: Probed
    prediction: Prediction
    predictor: Predictor
    """Whose the prediction is; where layers left on the way, those that stayed."""
    stopped: str | None = None
    """Why nothing more was measured; None where there was nothing more."""


def climb(
    probe_input: ProbeInput,
    sampled: Probed,
    spending: Spending,
    predictors: Mapping[str, StoredPredictor],
    reporter: Reporter,
) -> Climbed:
    """Measure level after level, and what advises a learning rate; see the module."""
    start = time.perf_counter() - sampled.sampling_seconds
    timing = time_passes(probe_input, sampled.sampling_seconds)
    episodes = len(probe_input.rollouts.trajectories)
    limit = spending.seconds(probe_input.layer_count, episodes, timing.step)
    levels = levels_that_tell_more(predictors, kind_of(probe_input.model))
    reporter.note(_plan(probe_input, levels, timing, limit))
    done = measure(probe_input, sampled, LEVELS[FIRST].probes, predictors, reporter)
    kept: tuple[int, ...] | None = None
    doing = FIRST
    try:
        for level in levels:
            doing = level.name
            chance = float(done.prediction.chance_best.max())
            if chance >= spending.confidence:
                done = replace(done, stopped=f"certain enough, {chance:.0%}")
                break
            going = still_possible(done.prediction, kept) if level.narrowed else None
            candidates = going or tuple(range(probe_input.layer_count))
            cost = timing.of(level, probe_input, done.probed.results, candidates)
            remaining = limit - (time.perf_counter() - start)
            if cost > remaining:
                left = f"of the {in_time(limit)} allowed, {in_time(max(remaining, 0))} are left"
                why = f"{left}, and the level {level.name} needs about {in_time(cost)}"
                done = replace(done, stopped=why)
                break
            results = _results(probe_input, level, done.probed, going, reporter)
            kept = going or kept
            done = _joined(probe_input, done, results, going, predictors)
        doing = "the learning rate"
        remaining = limit - (time.perf_counter() - start)
        done = advised(probe_input, done, timing, remaining, reporter)
    except KeyboardInterrupt:
        done = replace(done, stopped=f"by Ctrl-C, while measuring {doing}")
    return done


def _results(
    probe_input: ProbeInput,
    level: Level,
    probed: Probed,
    going: tuple[int, ...] | None,
    reporter: Reporter,
) -> dict[str, ProbeResult]:
    """What is missing of a level; only these layers go through probes that are dear by layer."""
    found: dict[str, ProbeResult] = {}
    for name in missing(level, probed.results):
        candidates = going if find_probe(name).of_candidates else None
        found |= run_probes(replace(probe_input, candidates=candidates), [name], reporter)
    return found


def _joined(
    probe_input: ProbeInput,
    before: Climbed,
    results: Mapping[str, ProbeResult],
    going: tuple[int, ...] | None,
    predictors: Mapping[str, StoredPredictor],
) -> Climbed:
    """The prediction with these results too."""
    probed = replace(before.probed, results={**before.probed.results, **results})
    after = _predicted(probe_input, probed, predictors)
    return replace(after, prediction=join(before.prediction, after.prediction, going))


def advised(
    probe_input: ProbeInput, done: Climbed, timing: Timing, remaining: float, reporter: Reporter
) -> Climbed:
    """With the probe that advises a learning rate, of the layers that may be best, if it fits.

    It ranks nothing: for models made from scratch, and where it was measured already, there is
    nothing to do.
    """
    if RATES_PROBE in done.probed.results or rates_for(probe_input.model) is None:
        return done
    asked, near = _advice(probe_input), shortlist(done.prediction.chance_best)
    if timing.of_probe(RATES_PROBE, asked, near) > remaining:
        return done
    found = run_probes(replace(asked, candidates=tuple(sorted(near))), [RATES_PROBE], reporter)
    results = {**done.probed.results, **found}
    return replace(done, probed=replace(done.probed, results=results))


def _advice(probe_input: ProbeInput) -> ProbeInput:
    """What the probe that advises a rate is given."""
    sizes = replace(probe_input.sizes, training_trajectories=ADVISED_FROM)
    return replace(probe_input, sizes=sizes)


def measure(
    probe_input: ProbeInput,
    sampled: Probed,
    probes: Sequence[str],
    predictors: Mapping[str, StoredPredictor],
    reporter: Reporter,
) -> Climbed:
    """Just these probes, and what they allow to predict."""
    probed = replace(sampled, results=run_probes(probe_input, probes, reporter))
    return _predicted(probe_input, probed, predictors)


def _predicted(
    probe_input: ProbeInput, probed: Probed, predictors: Mapping[str, StoredPredictor]
) -> Climbed:
    """What these results allow to predict."""
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
    if not levels or missing(LEVELS[FIRST], probed.results):
        return {}
    timing = time_passes(probe_input, probed.sampling_seconds)
    all_layers, measured = range(probe_input.layer_count), probed.results
    return {level.name: timing.of(level, probe_input, measured, all_layers) for level in levels}


def _plan(probe_input: ProbeInput, levels: Sequence[Level], timing: Timing, limit: float) -> str:
    """The levels and when each will be there, from now."""
    measured: list[str] = []
    told, spent = [], 0.0
    for level in (LEVELS[FIRST], *levels):
        spent += timing.of(level, probe_input, measured, range(probe_input.layer_count))
        measured += missing(level, measured)
        told.append(f"{level.name} after {in_time(spent)}")
    if RATES_PROBE not in measured and rates_for(probe_input.model) is not None:
        few = range(0, probe_input.layer_count, 4)
        spent += timing.of_probe(RATES_PROBE, _advice(probe_input), few)
        told.append(f"the learning rate after {in_time(spent)}")
    return (
        f"Plan: {', '.join(told)}, at most {in_time(limit)} (--budget); Ctrl-C answers with what "
        f"is there by then."
    )
