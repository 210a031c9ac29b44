"""What skipping a layer does to the log-likelihood of completions.

Rows of one batch are copies of the same completions; in layer k the rows of copy k keep their
input, so one pass skips every layer once and the first copy none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import FeatureInfo, Measurement, Probe, ProbeInput
from layerpick.probes.reading.passes import best_and_worst, collated, observing
from layerpick.training.batches.padded import token_log_probs
from layerpick.training.episodes.trajectory import Trajectory


class BypassProbe(Probe):
    """The effect of skipping each layer on rewarded and on unrewarded completions."""

    name = "bypass"
    needs = "forward"
    headings: ClassVar[Mapping[str, str]] = {"bypass_contrast": "bypass"}
    features = (
        FeatureInfo(
            "bypass_loss",
            "how much skipping the layer costs all completions, in nats per token",
            "mean of ln π(a) − ln π_skip(a)",
            "layer ablation, as in ShortGPT (arXiv 2403.03853)",
        ),
        FeatureInfo(
            "bypass_contrast",
            "how much more it costs rewarded completions than unrewarded ones",
            "bypass loss of each prompt's best completion − of its worst, mean over prompts",
            "own",
        ),
    )

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per prompt read."""
        return len(best_and_worst(probe_input, probe_input.sizes.bypass_pairs))

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """One pass of (layers + 1) × 2 rows for each prompt; see the class's features."""
        pairs = best_and_worst(probe_input, probe_input.sizes.bypass_pairs)
        losses, tokens = [], 0
        for pair in pairs:
            losses.append(bypass_losses(probe_input, pair))
            tokens += (probe_input.layer_count + 1) * sum(len(t.tokens) for t in pair)
            on_done(1)
        best, worst = np.stack(losses).transpose(1, 2, 0)  # each (layers, prompts)
        features = {
            "bypass_loss": (best + worst).mean(axis=1) / 2,
            "bypass_contrast": (best - worst).mean(axis=1),
        }
        return Measurement(features, tokens)


@torch.no_grad()
def bypass_losses(probe_input: ProbeInput, trajectories: Sequence[Trajectory]) -> np.ndarray:
    """(trajectories, layers), float64: ln π(a) − ln π_skip(a), mean over written tokens."""
    copies, rows = probe_input.layer_count + 1, len(trajectories)
    batch = collated(probe_input, list(trajectories) * copies)

    def skip(layer: int, given: Tensor, made: Tensor) -> Tensor:
        own = slice((layer + 1) * rows, (layer + 2) * rows)
        replaced = made.clone()
        replaced[own] = given[own]
        return replaced

    temperature = probe_input.rollouts.origin.temperature
    with observing(probe_input.model.layers, skip):
        log_probs = token_log_probs(probe_input.model.model, batch, temperature)
    written = batch.written
    means = (log_probs * written).sum(dim=1) / written.sum(dim=1).clamp(min=1)
    by_copy = means.double().reshape(copies, rows).cpu().numpy()
    return (by_copy[0] - by_copy[1:]).T
