"""A probe of one's own: how far each layer turns the residual stream.

    layerpick suggest --probes weights,examples/own_probe.py:Turn --json

`layerpick.probes.testing.check_probe` is the contract that every probe keeps; the tests run it on
this one.
"""

from collections.abc import Callable

import numpy as np
import torch

from layerpick.probes.base import FeatureInfo, Measurement, Probe, ProbeInput
from layerpick.probes.reading.passes import (
    best_and_worst,
    collated,
    observing,
    read,
    written_columns,
)

PROMPTS = 8


class Turn(Probe):
    """The angle between a layer's input and its output, at the tokens that the model wrote."""

    name = "turn"
    needs = "forward"
    features = (
        FeatureInfo(
            name="turn_angle",
            about="how far the layer turns the residual stream, in radians",
            formula="mean of arccos ⟨h_in, h_out⟩ / (‖h_in‖ ‖h_out‖)",
            source="own",
        ),
    )
    headings = {"turn_angle": "turn"}  # noqa: RUF012

    def steps(self, given: ProbeInput) -> int:
        """One per pair of completions."""
        return len(best_and_worst(given, PROMPTS))

    def measure(
        self, given: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """One forward pass for the best and the worst completion of each prompt."""
        angles, tokens = [], 0
        for pair in best_and_worst(given, PROMPTS):
            angles.append(self._angles(given, pair))
            tokens += sum(len(trajectory.tokens) for trajectory in pair)
            on_done(1)
        return Measurement({"turn_angle": np.mean(angles, axis=0)}, tokens)

    @torch.no_grad()
    def _angles(self, given: ProbeInput, pair) -> np.ndarray:
        batch = collated(given, pair)
        found = np.zeros(given.layer_count)

        def observe(layer: int, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
            cosine = torch.cosine_similarity(before.float(), after.float(), dim=-1).clamp(-1, 1)
            found[layer] = float(cosine[written_columns(batch)].arccos().mean())
            return after

        with observing(given.model.layers, observe):
            read(given, batch, columns=1)
        return found
