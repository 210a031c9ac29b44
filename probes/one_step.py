"""Adam's first step of each layer alone, at the rate of real training and far beyond it.

One gradient of each half of the rollouts gives that step for every layer at once; passes from the
layer on, over the other half, say what it would bring. The long step goes as far as many short
ones, in the direction of the first: it shows which layers saturate. Holds one gradient of the
model and the hidden states of one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import Measurement, Probe, ProbeInput
from layerpick.probes.fixed_texts import Text, read_text, starting_at, texts, with_inputs
from layerpick.probes.off_policy import (
    MAX_GRADIENT_NORM,
    cross_fitting_halves,
    judge,
    score_features,
)
from layerpick.probes.off_policy_scores import PromptScore, summary
from layerpick.probes.residual import requiring_gradients
from layerpick.training.policies import TrainedCopy

ADAM_EPSILON = 1e-8
STRIDES = {"one_step": 1.0, "long_step": 16.0}
"""By prefix of the features: the step's rate over that of real training."""


class OneStepProbe(Probe):
    """Gain and movement after Adam's first step of each layer alone."""

    name = "one_step"
    needs = "training"
    features = (
        *score_features("one_step", "after Adam's first step"),
        *score_features("long_step", "after Adam's first step at 16 times the rate"),
    )

    def steps(self, shared: ProbeInput) -> int:
        """One per half, then one per layer, length of the step and half."""
        return 2 + 2 * len(STRIDES) * shared.layer_count

    def measure(
        self, shared: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """One gradient per half, two passes per layer; see the class's features."""
        halves = [list(texts(shared, half, keep=False)) for half in cross_fitting_halves(shared)]
        scores: dict[tuple[str, int], list[PromptScore]] = defaultdict(list)
        for train, test in (halves, halves[::-1]):
            updates = first_steps(shared, train)
            on_done(1)
            for index, text in enumerate(test):
                known = with_inputs(shared, text)
                for layer, update in enumerate(updates):
                    for name, stride in STRIDES.items():
                        scores[name, layer] += _judged(shared, known, layer, update, stride)
                        if index == 0:
                            on_done(1)
        tokens = sum(text.tokens for half in halves for text in half)
        features: dict[str, list[float]] = defaultdict(list)
        for (prefix, _), found in sorted(scores.items()):
            for name, value in summary(found).items():
                features[f"{prefix}_{name}"].append(value)
        passes = 2 + len(STRIDES) * shared.layer_count
        return Measurement({name: np.array(v) for name, v in features.items()}, passes * tokens)


def first_steps(shared: ProbeInput, train: Sequence[Text]) -> list[dict[str, Tensor]]:
    """By layer, by parameter: what AdamW's first step adds, float32.

    −η g / (|g| + ε) with g the layer's gradient, scaled to a norm of at most 1.
    """
    updates: list[dict[str, Tensor]] = []
    layers = shared.model.layers
    with requiring_gradients(layers):
        for text in train:
            log_probs = read_text(shared, text)
            # The policy is still the base one: its ratio is 1, and nothing is clipped.
            (-(text.weights * text.advantages) * log_probs).sum().backward()
        for module in layers:
            gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
            total = torch.nn.utils.get_total_norm([g.float() for g in gradients.values()])
            scale = (MAX_GRADIENT_NORM / (total + 1e-6)).clamp(max=1)
            update = {}
            for name, gradient in gradients.items():
                scaled = gradient.float() * scale
                update[name] = -shared.learning_rate * scaled / (scaled.abs() + ADAM_EPSILON)
            updates.append(update)
    return updates


@torch.no_grad()
def _judged(
    shared: ProbeInput, text: Text, layer: int, update: dict[str, Tensor], stride: float
) -> list[PromptScore]:
    policy = TrainedCopy(shared.model.layers[layer])
    for name, step in update.items():
        policy.trained[name].add_(step, alpha=stride)
    with starting_at(shared, text, layer, policy):
        return list(judge(text, read_text(shared, text)))
