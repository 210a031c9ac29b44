"""Off-policy warm-up: train each layer alone on half of the rollouts, judge it on the other half.

No sampling beyond the shared rollouts. Every layer is trained for a few steps of the clipped
importance-ratio objective on the prompts of one half, with AdamW and the gradient clipped to 1, as
real training would; the other half says how much reward that would bring (by importance weights)
and how far the policy has moved. The halves are then swapped, so every prompt is judged once.

What a layer gains at first says little about what it gains in the end: layers differ in how soon
they saturate. Adam moves weights by about its rate in each step, so five steps at eight times the
rate of real training go about as far as forty of it do, at an eighth of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from layerpick.probes.base import WITH_BACKWARD, FeatureInfo, Measurement, Pace, Probe, ProbeInput
from layerpick.probes.gradient.statistics import alternating_halves
from layerpick.probes.reading.passes import groups_with_signal
from layerpick.probes.trials.prefixes import texts
from layerpick.probes.trials.reader import make_reader
from layerpick.probes.trials.trainee import Scores, features_of, trials
from layerpick.training.errors import LayerpickError

STEPS = (1, 3, 5, 10, 20)
"""When the policies trained at one rate can be judged."""
EQUAL_KL_STEPS = (1, 3, 5, 10)
"""When those trained at rates that move every layer alike can be judged."""
SCORES = {
    "gain": ("expected gain in reward on the other half", "mean of (w − 1)(r − r̄)"),
    "normalised_gain": ("the same, weights normalised", "Σ w r / Σ w − r̄"),
    "kl": ("how far the policy moved, in nats per trajectory", "mean of Σ_t (e^d − 1 − d)"),
    "gain_per_kl": ("gain for the distance moved", "gain / √KL"),
}
SOURCE = "importance sampling, w = min(π / π₀, 5), halves of the prompts swapped"


def score_features(prefix: str, after: str) -> tuple[FeatureInfo, ...]:
    """The features that judge one policy, each with its standard error over prompts."""
    found = []
    for name, (about, formula) in SCORES.items():
        full = f"{prefix}_{name}"
        found.append(FeatureInfo(full, f"{about}, {after}", formula, SOURCE))
        error = f"standard error of {full}"
        found.append(FeatureInfo(f"{full}_error", error, "over prompts", SOURCE))
    return tuple(found)


def _features() -> tuple[FeatureInfo, ...]:
    kinds = (
        ("off_policy", "at one learning rate", STEPS),
        ("equal_kl", "at rates whose first step moves every layer by the same KL", EQUAL_KL_STEPS),
    )
    return tuple(
        info
        for prefix, rate, times in kinds
        for steps in times
        for info in score_features(f"{prefix}_{steps}", f"after {steps} steps {rate}")
    )


class OffPolicyProbe(Probe):
    """Gain and movement after a few off-policy steps of each layer alone."""

    name = "off_policy"
    needs = "training"
    of_candidates = True
    headings: ClassVar[Mapping[str, str]] = {
        f"off_policy_{steps}_{name}": f"{steps}-step {text}"
        for steps in STEPS
        for name, text in {"gain": "gain", "normalised_gain": "norm. gain", "kl": "KL"}.items()
    }
    features = _features()

    def seconds(self, probe_input: ProbeInput, pace: Pace) -> float:
        """Each candidate's steps and judgements, in passes that start at it."""
        read = pace.forward * probe_input.share_learned_from
        times = probe_input.sizes.off_policy_steps
        passes = pace.passes(probe_input.layer_count)
        return read * (1 + passes * (WITH_BACKWARD * max(times) + len(times)))

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per trained layer, rate and half."""
        return (4 if probe_input.sizes.equal_kl_steps else 2) * len(probe_input.trained_layers)

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """Train layers on both halves, at one rate, then at rates of equal movement.

        The second kind of rates, if the sizes ask for it, comes from the movement after the
        first judgement of the first kind.
        """
        halves = cross_fitting_halves(probe_input)
        reader = make_reader(probe_input)
        read = tuple(list(texts(probe_input, half)) for half in halves)
        sizes = probe_input.sizes
        rate = sizes.off_policy_stride * probe_input.learning_rate
        rates = np.full(probe_input.layer_count, rate)
        plain, equal = sizes.off_policy_steps, sizes.equal_kl_steps
        layers = probe_input.trained_layers
        features = _features_at(trials(reader, read, rates, plain, layers, on_done), "off_policy")
        if equal:
            moved = features[f"off_policy_{min(plain)}_kl"].clip(min=1e-12)
            rates = rates * np.sqrt(np.exp(np.nanmean(np.log(moved))) / moved)
            found = trials(reader, read, rates, equal, layers, on_done)
            features.update(_features_at(found, "equal_kl"))
        steps = sum(max(times) + len(times) for times in (plain, equal) if times)
        passes = steps * len(layers)
        tokens = sum(text.tokens for half in read for text in half)
        return Measurement(features, passes * tokens)


def _features_at(scores: Mapping[int, Scores], prefix: str) -> dict[str, np.ndarray]:
    return {
        name: values
        for time, by_layer in scores.items()
        for name, values in features_of(by_layer, f"{prefix}_{time}").items()
    }


def cross_fitting_halves(probe_input: ProbeInput) -> tuple[list[int], list[int]]:
    """Halves of as many groups as the sizes allow, those with signal first and dealt evenly.

    Raises LayerpickError when a half has no group that carries signal.
    """
    signal = groups_with_signal(probe_input)
    if len(signal) < 2:
        raise LayerpickError("Fewer than two prompts carry signal: give more --prompts.")
    size = probe_input.rollouts.origin.group_size
    most = max(2, probe_input.sizes.training_trajectories // size)
    first, second = alternating_halves(signal, len(probe_input.rollouts.groups))
    return first[: -(-most // 2)], second[: most // 2]
