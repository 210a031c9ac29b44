"""From what was loaded, sampled and probed to the records of a suggestion."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from layerpick.calibration.predictors.base import Prediction
from layerpick.calibration.sweeps.values import Sweep
from layerpick.probes.base import ProbeResult
from layerpick.probes.run import peak_memory
from layerpick.selector.suggestion.result import (
    Influence,
    LayerSuggestion,
    ModelSummary,
    ProbeSummary,
    RolloutSummary,
    Savings,
    TaskSummary,
)
from layerpick.training.algorithms.base import Algorithm
from layerpick.training.episodes.rollouts import Rollouts
from layerpick.training.models.loading import LoadedModel
from layerpick.training.sweeps.multiplexed import model_label
from layerpick.training.tasks.base import Task
from layerpick.training.tasks.forms import in_words, thinking_note

BYTES_PER_TRAINED_PARAMETER = 12
"""A float32 gradient and AdamW's two float32 moments."""
NO_EFFECT = 1e-6
"""In contribution: less is rounding."""
MOST_INFLUENCES = 6
MOST_REASONS = 2
PACKAGES = ("layerpick", "torch", "transformers", "trl", "numpy", "scikit-learn")


def layers(
    depth: np.ndarray,
    prediction: Prediction,
    features: Mapping[str, np.ndarray],
    sweep: Sweep | None,
) -> tuple[LayerSuggestion, ...]:
    """One record per layer, in order from the input."""
    return tuple(
        LayerSuggestion(
            layer=layer,
            depth=float(depth[layer]),
            predicted=float(prediction.contribution[layer]),
            interval=(float(prediction.low[layer]), float(prediction.high[layer])),
            chance_best=float(prediction.chance_best[layer]),
            measured=sweep.contribution(layer) if sweep and layer in sweep.contributions else None,
            features={
                name: float(values[layer])
                for name, values in features.items()
                if np.isfinite(values[layer])
            },
        )
        for layer in range(len(depth))
    )


def influences(
    effects: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray]
) -> tuple[Influence, ...]:
    """The features that moved the ranking most, from what each adds to every layer (layers,)."""
    found = []
    for name, effect in effects.items():
        values = features.get(name)
        if values is None or effect.std() < NO_EFFECT:
            continue
        known = np.isfinite(values)
        rises = float(effect[known] @ (values[known] - values[known].mean())) >= 0
        found.append(Influence(feature=name, higher_is_better=rises, spread=float(effect.std())))
    return tuple(sorted(found, key=lambda each: -each.spread)[:MOST_INFLUENCES])


def because(effects: Mapping[str, np.ndarray], contribution: np.ndarray) -> tuple[str, ...]:
    """The features that do most to put the pick above the next layer, most telling first."""
    if len(contribution) < 2:
        return ()
    pick, following = np.argsort(-contribution, kind="stable")[:2]
    lead = {name: float(effect[pick] - effect[following]) for name, effect in effects.items()}
    telling = sorted(
        (name for name, gap in lead.items() if gap > NO_EFFECT), key=lambda n: -lead[n]
    )
    return tuple(telling[:MOST_REASONS])


def model(loaded: LoadedModel) -> ModelSummary:
    """Which weights were probed."""
    return ModelSummary(
        id=loaded.identity.name,
        label=model_label(loaded.identity),
        revision=loaded.identity.revision,
        weights_hash=loaded.identity.weights_hash,
        layers=len(loaded.layers),
        parameters=_parameters(loaded),
        dtype=str(loaded.dtype).removeprefix("torch."),
        device=str(loaded.device),
    )


def task(chosen: Task, algorithm: Algorithm) -> TaskSummary:
    """What the model was asked, and how rewards became advantages."""
    return TaskSummary(
        name=chosen.name,
        algorithm=algorithm.name,
        source=chosen.source,
        data_hash=chosen.fingerprint(),
        prompt_form=in_words(chosen.settings),
        settings_hash=chosen.settings.identity,
        note=thinking_note(chosen.settings),
    )


def rollouts(samples: Rollouts, signal: int, readable: float) -> RolloutSummary:
    """What the model answered."""
    return RolloutSummary(
        prompts=len(samples.groups),
        group_size=samples.origin.group_size,
        groups_with_signal=signal,
        mean_reward=samples.mean_reward,
        reward_error=samples.reward_error,
        tokens=samples.generated_tokens,
        temperature=samples.origin.temperature,
        max_new_tokens=samples.origin.max_new_tokens,
        failures=len(samples.failures),
        cut=samples.cut,
        readable=readable,
    )


def probes(results: Mapping[str, ProbeResult]) -> tuple[ProbeSummary, ...]:
    """What each probe cost, and what is missing of it."""
    return tuple(
        ProbeSummary(
            name=name,
            seconds=result.cost.seconds,
            tokens=result.cost.tokens,
            peak_bytes=result.cost.peak_bytes,
            sampled_tokens=result.cost.sampled_tokens,
            failure=result.failure,
        )
        for name, result in results.items()
    )


def peak_bytes(loaded: LoadedModel, results: Mapping[str, ProbeResult]) -> int:
    """Most memory held at any time that was measured."""
    return max([peak_memory(loaded.device), *(r.cost.peak_bytes for r in results.values())])


def savings(loaded: LoadedModel, layer: int) -> Savings:
    """What training one layer saves against training everything."""
    single, full = loaded.layers.parameter_count(layer), _parameters(loaded)
    return Savings(
        trainable_parameters=single,
        full_parameters=full,
        training_bytes=single * BYTES_PER_TRAINED_PARAMETER,
        full_training_bytes=full * BYTES_PER_TRAINED_PARAMETER,
    )


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return {package: version(package) for package in PACKAGES}


def _parameters(loaded: LoadedModel) -> int:
    return sum(parameter.numel() for parameter in loaded.model.parameters())
