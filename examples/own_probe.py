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

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per pair of completions."""
        return len(best_and_worst(probe_input, PROMPTS))

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """One forward pass for the best and the worst completion of each prompt."""
        angles, tokens = [], 0
        for pair in best_and_worst(probe_input, PROMPTS):
            angles.append(self._angles(probe_input, pair))
            tokens += sum(len(trajectory.tokens) for trajectory in pair)
            on_done(1)
        return Measurement({"turn_angle": np.mean(angles, axis=0)}, tokens)

    @torch.no_grad()
    def _angles(self, probe_input: ProbeInput, pair) -> np.ndarray:
        batch = collated(probe_input, pair)
        found = np.zeros(probe_input.layer_count)

        def observe(layer: int, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
            cosine = torch.cosine_similarity(before.float(), after.float(), dim=-1).clamp(-1, 1)
            found[layer] = float(cosine[written_columns(batch)].arccos().mean())
            return after

        with observing(probe_input.model.layers, observe):
            read(probe_input, batch, columns=1)
        return found
