"""One long step of each layer alone: Adam's first, at many times the rate of real training.

One gradient of each half of the rollouts gives that step for every layer at once; a pass from the
layer on, over the other half, says what it would bring. The step goes as far as many short ones,
in the direction of the first: it shows which layers saturate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from layerpick.probes.base import WITH_BACKWARD, Measurement, Pace, Probe, ProbeInput
from layerpick.probes.trials.off_policy import cross_fitting_halves, score_features
from layerpick.probes.trials.prefixes import texts
from layerpick.probes.trials.reader import make_reader
from layerpick.probes.trials.trainee import features_of, trials


class OneStepProbe(Probe):
    """Gain and movement after one long step of each layer alone."""

    name = "one_step"
    needs = "training"
    headings: ClassVar[Mapping[str, str]] = {"long_step_normalised_gain": "long-step gain"}
    features = score_features("long_step", "after Adam's first step, a long one")

    def seconds(self, probe_input: ProbeInput, pace: Pace) -> float:
        """One step on everything, then each layer judged in passes that start at it."""
        read = pace.forward * probe_input.share_learned_from
        return read * (1 + WITH_BACKWARD + pace.passes(probe_input.layer_count))

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per layer and half."""
        return 2 * len(probe_input.trained_layers)

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """One gradient per half, one pass per layer; see the class's features."""
        reader = make_reader(probe_input)
        halves = [list(texts(probe_input, half)) for half in cross_fitting_halves(probe_input)]
        rate = probe_input.sizes.one_step_stride * probe_input.learning_rate
        rates = np.full(probe_input.layer_count, rate)
        layers = probe_input.trained_layers
        scores = trials(reader, halves, rates, (1,), layers, on_done)[1]
        tokens = sum(text.tokens for half in halves for text in half)
        passes = 2 + len(layers)
        return Measurement(features_of(scores, "long_step"), passes * tokens)
