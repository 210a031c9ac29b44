"""One long step of each layer alone: Adam's first, at many times the rate of real training.

One gradient of each half of the rollouts gives that step for every layer at once; a pass from the
layer on, over the other half, says what it would bring. The step goes as far as many short ones,
in the direction of the first: it shows which layers saturate. Holds one gradient of the model and
the hidden states of one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import Measurement, Probe, ProbeInput
from layerpick.probes.reading.passes import requiring_gradients
from layerpick.probes.trials.off_policy import (
    MAX_GRADIENT_NORM,
    cross_fitting_halves,
    judge,
    score_features,
)
from layerpick.probes.trials.prefixes import Text, read_text, starting_at, texts, with_inputs
from layerpick.probes.trials.scores import PromptScore, summary
from layerpick.training.engine.policies import TrainedCopy

ADAM_EPSILON = 1e-8


class OneStepProbe(Probe):
    """Gain and movement after one long step of each layer alone."""

    name = "one_step"
    needs = "training"
    headings: ClassVar[Mapping[str, str]] = {"long_step_normalised_gain": "1-step gain"}
    features = score_features("long_step", "after Adam's first step, a long one")

    def steps(self, shared: ProbeInput) -> int:
        """One per half, then one per layer and half."""
        return 2 + 2 * shared.layer_count

    def measure(
        self, shared: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """One gradient per half, one pass per layer; see the class's features."""
        halves = [list(texts(shared, half, keep=False)) for half in cross_fitting_halves(shared)]
        scores: dict[int, list[PromptScore]] = defaultdict(list)
        for train, test in (halves, halves[::-1]):
            gradients = layer_gradients(shared, train)
            on_done(1)
            for index, text in enumerate(test):
                known = with_inputs(shared, text)
                for layer, gradient in enumerate(gradients):
                    scores[layer] += _judged(shared, known, layer, gradient)
                    if index == 0:
                        on_done(1)
        tokens = sum(text.tokens for half in halves for text in half)
        features: dict[str, list[float]] = defaultdict(list)
        for layer in range(shared.layer_count):
            for name, value in summary(scores[layer]).items():
                features[f"long_step_{name}"].append(value)
        passes = 2 + shared.layer_count
        return Measurement({name: np.array(v) for name, v in features.items()}, passes * tokens)


def layer_gradients(shared: ProbeInput, train: Sequence[Text]) -> list[dict[str, Tensor]]:
    """By layer, by parameter: the gradient of the loss, in the model's dtype."""
    layers = shared.model.layers
    with requiring_gradients(layers):
        for text in train:
            log_probs = read_text(shared, text)
            # The policy is still the base one: its ratio is 1, and nothing is clipped.
            (-(text.weights * text.advantages) * log_probs).sum().backward()
        return [
            {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
            for module in layers
        ]


def first_step(gradients: Mapping[str, Tensor], rate: float) -> dict[str, Tensor]:
    """By parameter: what AdamW's first step adds, float32.

    −rate · g / (|g| + ε), with g the layer's gradient scaled to a norm of at most 1.
    """
    total = torch.nn.utils.get_total_norm([g.float() for g in gradients.values()])
    scale = (MAX_GRADIENT_NORM / (total + 1e-6)).clamp(max=1)
    scaled = {name: gradient.float() * scale for name, gradient in gradients.items()}
    return {name: -rate * g / (g.abs() + ADAM_EPSILON) for name, g in scaled.items()}


@torch.no_grad()
def _judged(
    shared: ProbeInput, text: Text, layer: int, gradients: Mapping[str, Tensor]
) -> list[PromptScore]:
    policy = TrainedCopy(shared.model.layers[layer])
    rate = shared.budget.one_step_stride * shared.learning_rate
    for name, step in first_step(gradients, rate).items():
        policy.trained[name].add_(step)
    with starting_at(shared, text, layer, policy):
        return list(judge(text, read_text(shared, text)))
