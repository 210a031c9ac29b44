"""Curvature of the objective and of the policy along each layer's gradient.

One Hessian–vector product per layer, by differentiating a gradient twice. With J(θ) the importance
ratio objective (1/B) Σ_i w_i Σ_t A_it π_θ(a_it) / π(a_it) of a few trajectories, g its gradient in
a layer and v = g / ‖g‖, the product with J's linear part gives vᵀ ∇² v of the log-likelihoods, and
at no further cost the slopes d_t = ∂_v log π(a_t) of every token. From these come both curvatures.

Limits: read on a few trajectories, so direction and slope share their noise. Attention is computed
step by step ("eager"): fused attention cannot be differentiated twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import FeatureInfo, Measurement, Probe, ProbeInput
from layerpick.probes.reading.passes import attention_as, requiring_gradients
from layerpick.probes.reading.token_losses import Contrast, contrast
from layerpick.training.batches.padded import token_log_probs

STEP_KL = 0.01
"""Nats per trajectory that the step of the predicted gain moves the policy."""


class CurvatureProbe(Probe):
    """Second derivatives along the gradient."""

    name = "curvature"
    needs = "backward"
    headings: ClassVar[Mapping[str, str]] = {"curvature_gain": "curv. gain"}
    features = (
        FeatureInfo(
            "curvature",
            "how fast the gradient's promise bends away",
            "−vᵀ ∇²J v, v = g / ‖g‖",
            "Pearlmutter 1994 (Hessian–vector product)",
        ),
        FeatureInfo(
            "kl_curvature",
            "how far a step along the gradient moves the policy",
            "mean over trajectories of Σ_t (∂_v log π(a_t))²",
            "empirical Fisher information along v; KL ≈ ½ s² of it",
        ),
        FeatureInfo(
            "curvature_gain",
            "gain predicted for the step along the gradient that moves the policy by 0.01 nats",
            "s ‖g‖ − ½ s² × curvature, s = √(0.02 / KL curvature)",
            "second-order expansion; Trust Region Policy Optimization (arXiv 1502.05477)",
        ),
    )

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per layer."""
        return probe_input.layer_count

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """Read a few trajectories once and differentiate twice in each layer."""
        read = contrast(probe_input, probe_input.sizes.curvature_trajectories)
        rows = []
        with attention_as(probe_input.model.model, "eager"):
            for layer in range(probe_input.layer_count):
                rows.append(layer_curvature(probe_input, read, layer))
                on_done(1)
        gains = [row.gain(STEP_KL) for row in rows]
        features = {
            "curvature": np.array([row.curvature for row in rows]),
            "kl_curvature": np.array([row.kl_curvature for row in rows]),
            "curvature_gain": np.array(gains),
        }
        return Measurement(features, probe_input.layer_count * read.tokens)


@dataclass(frozen=True)
class LayerCurvature:
    """One layer's derivatives along its own gradient."""

    slope: float
    """‖g‖."""
    curvature: float
    kl_curvature: float

    def gain(self, kl: float) -> float:
        """Predicted gain of the step along the gradient that moves the policy by `kl` nats."""
        if self.kl_curvature <= 0:
            return 0.0
        step = (2 * kl / self.kl_curvature) ** 0.5
        return step * self.slope - 0.5 * step**2 * self.curvature


def layer_curvature(probe_input: ProbeInput, read: Contrast, layer: int) -> LayerCurvature:
    """Slope and curvatures of one layer; see the module's formulas. All 0 without a gradient."""
    parameters = list(probe_input.model.layers[layer].parameters())
    weights = (read.weights / len(read.weights)).requires_grad_(True)
    with requiring_gradients([probe_input.model.layers[layer]]):
        log_probs = token_log_probs(
            probe_input.model.model, read.batch, probe_input.rollouts.origin.temperature
        )
        gradient = _gradient((weights * log_probs).sum(), parameters, create_graph=True)
        squared = sum(float(part.detach().float().square().sum()) for part in gradient)
        if squared == 0:
            return LayerCurvature(0.0, 0.0, 0.0)
        direction = [part.detach() / squared**0.5 for part in gradient]
        along = sum((g * v).float().sum() for g, v in zip(gradient, direction, strict=True))
        slopes, *product = _gradient(along, [weights, *parameters])
    linear = sum(float((h * v).float().sum()) for h, v in zip(product, direction, strict=True))
    slopes, weights = slopes * read.batch.written, weights.detach()
    ratio = float((weights * slopes.square()).sum())
    fisher = float(slopes.square().sum(dim=1).mean())
    return LayerCurvature(squared**0.5, -(linear + ratio), fisher)


def _gradient(value, inputs: Sequence[Tensor], *, create_graph: bool = False) -> list[Tensor]:  # type: ignore[no-untyped-def]
    return list(
        torch.autograd.grad(
            value, inputs, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    )
