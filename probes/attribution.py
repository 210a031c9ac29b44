"""Captum's attributions of the advantage-weighted log-likelihood to each layer's output.

Read on a few trajectories: the integrated attributions pass them `integration_steps` times per
layer. What a layer's output is said to contribute, token by token and unit by unit, is added up in
absolute value, because with their signs the integrated attributions of every layer sum to the
same number (all that a token's prediction knows passes through every layer's output).

The baseline of the integrated ones is the same tokens in a random order. The usual one, zero, is
where the norms of today's models jump, and no affordable number of steps integrates over that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import FeatureInfo, Measurement, Probe, ProbeInput
from layerpick.probes.reading.token_losses import Contrast, contrast
from layerpick.training.batches.padded import Batch, predicting_places
from layerpick.training.models.head import log_probs_of, logits_at

ROWS_AT_A_TIME = 16


class AttributionProbe(Probe):
    """Gradient × activation, integrated gradients and conductance of each layer's output."""

    name = "attribution"
    needs = "backward"
    features = (
        FeatureInfo(
            "gradient_x_activation",
            "how much the advantage-weighted log-likelihood hangs on the layer's output",
            "mean over trajectories of Σ |h · ∂f/∂h|",
            "captum LayerGradientXActivation (arXiv 1605.01713)",
        ),
        FeatureInfo(
            "integrated_gradients",
            "the same, along a straight path of the layer's output from its baseline",
            "mean of Σ |(h − h₀) · ∫ ∂f/∂h dα|",
            "captum LayerIntegratedGradients (arXiv 1703.01365)",
        ),
        FeatureInfo(
            "conductance",
            "the same, along a straight path of the embeddings",
            "mean of Σ |∫ ∂f/∂h · ∂h/∂x (x − x₀) dα|",
            "captum LayerConductance (arXiv 1805.12233)",
        ),
    )

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per layer."""
        return probe_input.layer_count

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """Attribute a few trajectories' objective to every layer's output."""
        read = contrast(probe_input, probe_input.sizes.attribution_trajectories)
        found: dict[str, list[float]] = {info.name: [] for info in self.features}
        attributions = LayerAttributions(probe_input, read)
        for layer in range(probe_input.layer_count):
            for name, values in attributions.of(layer).items():
                found[name].append(float(values.abs().float().sum(dim=(1, 2)).mean()))
            on_done(1)
        steps = probe_input.sizes.integration_steps
        passes = probe_input.layer_count * (1 + 2 * (steps + 1))
        features = {name: np.array(values) for name, values in found.items()}
        return Measurement(features, passes * read.tokens)


class LayerAttributions:
    """Signed attributions of the objective of a few trajectories."""

    def __init__(self, probe_input: ProbeInput, read: Contrast):
        self._probe_input = probe_input
        batch = read.batch
        embed = probe_input.model.model.get_input_embeddings()
        self.embeddings = embed(batch.input_ids).detach()
        """(rows, tokens, width)."""
        self.baselines = embed(shuffled(batch, probe_input.seed)).detach()
        """(rows, tokens, width)."""
        self._others = (batch.attention_mask, batch.position_ids, batch.targets, read.weights)

    def value(self, embeddings: Tensor) -> Tensor:
        """(rows,): the objective with other embeddings in these trajectories' places."""
        return self._objective(embeddings, *self._others)

    def _objective(
        self, embeddings: Tensor, mask: Tensor, positions: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        """(rows,): Σ_t w A_t log π(a_t) of each trajectory, from its embeddings."""
        places = predicting_places(embeddings, targets.shape[1])
        logits = logits_at(
            self._probe_input.model.model,
            places.flatten(),
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
        ).unflatten(0, targets.shape)
        temperature = self._probe_input.rollouts.origin.temperature
        return (weights * log_probs_of(logits, targets, temperature)).sum(dim=1)

    def of(self, layer: int) -> dict[str, Tensor]:
        """By feature, (rows, tokens, width): what the layer's output contributes."""
        from captum.attr import (
            LayerConductance,
            LayerGradientXActivation,
            LayerIntegratedGradients,
        )

        module = self._probe_input.model.layers[layer]
        given: dict[str, Any] = {"additional_forward_args": self._others}
        path = {
            **given,
            "baselines": self.baselines,
            "n_steps": self._probe_input.sizes.integration_steps,
            "internal_batch_size": max(ROWS_AT_A_TIME, len(self.embeddings)),
        }
        methods = {
            "gradient_x_activation": (LayerGradientXActivation, given),
            "integrated_gradients": (LayerIntegratedGradients, path),
            "conductance": (LayerConductance, path),
        }
        return {
            name: _tensor(method(self._objective, module).attribute(self.embeddings, **options))
            for name, (method, options) in methods.items()
        }


def shuffled(batch: Batch, seed: int) -> Tensor:
    """(rows, tokens), int64: each row's tokens in a random order, padding left where it is."""
    generator = torch.Generator().manual_seed(seed)
    result = batch.input_ids.clone()
    for row, mask in enumerate(batch.attention_mask.bool()):
        tokens = batch.input_ids[row, mask]
        result[row, mask] = tokens[torch.randperm(len(tokens), generator=generator)]
    return result


def _tensor(attribution: Any) -> Tensor:
    """A layer that returns a tuple gets a tuple back."""
    return (attribution if isinstance(attribution, Tensor) else attribution[0]).detach()
