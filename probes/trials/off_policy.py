"""Off-policy warm-up: train each layer alone on half of the rollouts, judge it on the other half.

No sampling beyond the shared rollouts. Every layer is trained for a few steps of the clipped
importance-ratio objective on the prompts of one half, with AdamW and the gradient clipped to 1, as
real training would; the other half says how much reward that would bring (by importance weights)
and how far the policy has moved. The halves are then swapped, so every prompt is judged once.

What a layer gains at first says little about what it gains in the end: layers differ in how soon
they saturate. Adam moves weights by about its rate in each step, so five steps at eight times the
rate of real training go about as far as forty of it do, at an eighth of the cost.

Limits: a large model's hidden states of all layers are held for all rollouts read; where that
takes more than 8 GB the probe refuses, and `one_step` is the one to use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch

from layerpick.probes.base import FeatureInfo, Measurement, Probe, ProbeInput
from layerpick.probes.gradient.statistics import alternating_halves
from layerpick.probes.reading.passes import groups_with_signal
from layerpick.probes.trials.prefixes import Text, read_text, starting_at, texts
from layerpick.probes.trials.scores import PromptScore, score_prompt, summary
from layerpick.training.engine.policies import TrainedCopy
from layerpick.training.errors import LayerpickError

STEPS = (1, 3, 5, 10, 20)
"""When the policies trained at one rate can be judged."""
EQUAL_KL_STEPS = (1, 3, 5, 10)
"""When those trained at rates that move every layer alike can be judged."""
MAX_GRADIENT_NORM = 1.0
MOST_HELD_BYTES = 8e9
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
    headings: ClassVar[Mapping[str, str]] = {"off_policy_5_gain": "5-step gain"}
    features = _features()

    def steps(self, shared: ProbeInput) -> int:
        """One per layer, rate and half."""
        return (4 if shared.budget.equal_kl_steps else 2) * shared.layer_count

    def measure(
        self, shared: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """Train every layer on both halves, at one rate, then at rates of equal movement.

        The second kind of rates, if the budget asks for it, comes from the movement after the
        first judgement of the first kind.
        """
        halves = cross_fitting_halves(shared)
        _refuse_much(shared, halves)
        read = tuple(list(texts(shared, half, keep=True)) for half in halves)
        budget = shared.budget
        rates = np.full(shared.layer_count, budget.off_policy_stride * shared.learning_rate)
        plain, equal = budget.off_policy_steps, budget.equal_kl_steps
        features = _measure(shared, read, rates, "off_policy", plain, on_done)
        if equal:
            moved = features[f"off_policy_{min(plain)}_kl"].clip(min=1e-12)
            rates = rates * np.sqrt(np.exp(np.log(moved).mean()) / moved)
            features.update(_measure(shared, read, rates, "equal_kl", equal, on_done))
        steps = sum(max(times) + len(times) for times in (plain, equal) if times)
        passes = steps * shared.layer_count
        tokens = sum(text.tokens for half in read for text in half)
        return Measurement(features, passes * tokens)


def cross_fitting_halves(shared: ProbeInput) -> tuple[list[int], list[int]]:
    """Halves of as many groups as the budget allows, those with signal first and dealt evenly.

    Raises LayerpickError when a half has no group that carries signal.
    """
    signal = groups_with_signal(shared)
    if len(signal) < 2:
        raise LayerpickError("Fewer than two prompts carry signal: give more --prompts.")
    size = shared.rollouts.origin.group_size
    most = max(2, shared.budget.training_trajectories // size)
    first, second = alternating_halves(signal, len(shared.rollouts.groups))
    return first[: -(-most // 2)], second[: most // 2]


def judge(text: Text, log_probs: torch.Tensor) -> Iterator[PromptScore]:
    """One score for each prompt of a text, from a policy's log-probabilities (N,)."""
    difference = (log_probs - text.base).double()
    moved = text.by_trajectory(difference)
    divergence = text.by_trajectory(difference.exp() - 1 - difference)
    rewards = np.array([trajectory.reward for trajectory in text.trajectories])
    prompts = np.array([trajectory.group for trajectory in text.trajectories])
    for prompt in dict.fromkeys(prompts.tolist()):
        own = prompts == prompt
        yield score_prompt(rewards[own], moved[own], divergence[own])


def _measure(
    shared: ProbeInput,
    halves: Sequence[Sequence[Text]],
    rates: np.ndarray,
    prefix: str,
    times: Sequence[int],
    on_done: Callable[[int], None],
) -> dict[str, np.ndarray]:
    rows = []
    for layer, rate in enumerate(rates):
        scores: dict[int, list[PromptScore]] = {steps: [] for steps in times}
        for train, test in (halves, halves[::-1]):
            for steps, found in _warm_up(shared, layer, float(rate), times, train, test):
                scores[steps] += found
            on_done(1)
        row = {}
        for steps, found in scores.items():
            row.update({f"{prefix}_{steps}_{k}": v for k, v in summary(found).items()})
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _warm_up(
    shared: ProbeInput,
    layer: int,
    rate: float,
    times: Sequence[int],
    train: Sequence[Text],
    test: Sequence[Text],
) -> Iterator[tuple[int, list[PromptScore]]]:
    """Train one layer on `train`; after each number of steps in `times`, judge it on `test`."""
    policy = TrainedCopy(shared.model.layers[layer])
    parameters = list(policy.trained.values())
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.0)
    for step in range(1, max(times) + 1):
        for text in train:
            with starting_at(shared, text, layer, policy):
                text.loss(read_text(shared, text)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        if step in times:
            yield step, [score for text in test for score in _judged(shared, text, layer, policy)]


@torch.no_grad()
def _judged(shared: ProbeInput, text: Text, layer: int, policy: TrainedCopy) -> list[PromptScore]:
    with starting_at(shared, text, layer, policy):
        return list(judge(text, read_text(shared, text)))


def _refuse_much(shared: ProbeInput, halves: Sequence[Sequence[int]]) -> None:
    config = shared.model.model.config.get_text_config(decoder=True)
    tokens = sum(len(t.tokens) for half in halves for g in half for t in shared.rollouts.groups[g])
    held = tokens * config.hidden_size * shared.layer_count * shared.model.dtype.itemsize
    if held > MOST_HELD_BYTES:
        raise LayerpickError(
            f"Hidden states of all layers would take {held / 1e9:.0f} GB; the probe 'one_step' "
            f"holds none."
        )
