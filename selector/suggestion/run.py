"""From a model and a task to a suggestion: sample once, probe, predict.

This is the function behind `layerpick suggest` and `layerpick.suggest`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from layerpick.calibration.predictors.losses import shortlist
from layerpick.calibration.predictors.stored import available_predictors
from layerpick.probes.base import ProbeSizes
from layerpick.selector.prepare import default_rate, prepare
from layerpick.selector.progress import Reporter, Silent
from layerpick.selector.settings import ModelChoice, RolloutChoice, SamplingChoice
from layerpick.selector.suggestion import summaries
from layerpick.selector.suggestion.budget import DEFAULT, Spending, read_budget
from layerpick.selector.suggestion.climb import climb, further_levels, layer_features, measure
from layerpick.selector.suggestion.probing import refuse_contradictions, sample
from layerpick.selector.suggestion.rate import rate_of
from layerpick.selector.suggestion.result import Cost, Suggestion
from layerpick.selector.verification.find import find_measured
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.tasks.settings import TaskSettings


def suggest(
    model: ModelChoice | str | None = None,
    task: str = "math",
    *,
    settings: TaskSettings | None = None,
    algorithm: str | None = None,
    sampling: SamplingChoice | None = None,
    rollouts: RolloutChoice | None = None,
    probes: Sequence[str] | None = None,
    sizes: ProbeSizes | None = None,
    spending: Spending | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Suggestion:
    """Predict which decoder layer of `model` gains most from RL on `task`, trained alone.

    `model` is a Hub id, a folder, a .gguf file, or None for the built-in model of the task.
    Levels of probes are measured from cheap to dear, in the order of what they are worth, for as
    long as `spending` allows (10 minutes if left out); `probes` names them instead.
    Raises LayerpickError for whatever the user can mend, NoSignalError when the model's rewards
    do not differ within any group.
    """
    start = time.perf_counter()
    choice = model if isinstance(model, ModelChoice) else ModelChoice(model)
    rollouts = rollouts or RolloutChoice()
    reporter = reporter or Silent()
    sampling = sampling or SamplingChoice()
    prepared = prepare(choice, task, settings or TaskSettings(), sampling)
    chosen = make_algorithm(algorithm or prepared.task.default_algorithm)
    loaded = time.perf_counter()
    probe_input, sampled = sample(
        prepared,
        chosen,
        rollouts,
        default_rate(prepared),
        sizes=sizes,
        seed=seed,
        reporter=reporter,
    )
    refuse_contradictions(sampled.rollouts, rollouts, sampling)
    predictors = available_predictors()
    if probes is None:
        limit = spending or read_budget(DEFAULT)
        climbed = climb(probe_input, sampled, limit, predictors, reporter)
    else:
        climbed = measure(probe_input, sampled, probes, predictors, reporter)
    prediction, probed = climbed.prediction, climbed.probed
    samples, results, features = probed.rollouts, probed.results, probed.features
    effects = climbed.predictor.influences(layer_features(probe_input, probed))
    identity = prepared.model.identity
    data = prepared.task.fingerprint()
    name = prepared.task.name
    sweep = find_measured(
        identity.name, identity.weights_hash, name, chosen.name, data, note=reporter.note
    )
    pick = prediction.pick
    return Suggestion(
        pick=pick,
        expected_loss=prediction.expected_loss,
        loss_bound=prediction.loss_bound,
        shortlist=shortlist(prediction.chance_best),
        influences=summaries.influences(effects, features),
        because=summaries.because(effects, prediction.contribution),
        basis=prediction.basis,
        rates=prediction.rates,
        stopped=climbed.stopped,
        learning_rate=rate_of(pick, probed, prepared),
        further={} if climbed.stopped else further_levels(probe_input, probed, predictors),
        measured_by=sweep.source if sweep else None,
        coverage=prediction.coverage,
        layers=summaries.layers(prepared.model.layers.depths, prediction, features, sweep),
        model=summaries.model(prepared.model),
        task=summaries.task(prepared.task, chosen),
        rollouts=summaries.rollouts(samples, probed.signal, probed.readable),
        cost=Cost(
            seconds=time.perf_counter() - start,
            load_seconds=loaded - start,
            sampling_seconds=probed.sampling_seconds,
            sampled_tokens=samples.generated_tokens
            + sum(result.cost.sampled_tokens for result in results.values()),
            probe_tokens=sum(result.cost.tokens for result in results.values()),
            peak_bytes=summaries.peak_bytes(prepared.model, results),
            probes=summaries.probes(results),
        ),
        savings=summaries.savings(prepared.model, pick),
        seed=seed,
        versions=summaries.versions(),
    )
