"""Statistics of the policy gradient at the sampling policy, all from one streaming backward.

One micro-batch is one group: its gradient g_m is that of the advantage-weighted log-likelihood
−(1/G) Σ_i w_i Σ_t A_it log π(a_it), the GRPO gradient where the importance ratio is 1. Each
parameter's gradient is reduced to a sketch and freed as soon as it exists, so memory stays near
weights + activations of one group. Groups without reward variance have zero gradient; they count
and cost nothing.

Limits: inner products of layers with more than 131,072 parameters are unbiased estimates from a
random subset of coordinates, exact ones below that; squared norms are always exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import FeatureInfo, Probe, ProbeInput
from layerpick.probes.sketch import GradientSketcher, LayerSketch
from layerpick.training.batching import collate, token_log_probs, token_values
from layerpick.training.errors import LayerpickError

FISHER_DAMPING = 1e-3
"""ε of the Fisher-normalised gain, as a share of the layer's mean Fisher information."""


class GradientProbe(Probe):
    """Size, signal and expected effect of each layer's policy gradient."""

    name = "gradient"
    needs = "backward"
    features = (
        FeatureInfo(
            "gradient_norm", "size of the mean gradient", "‖ḡ‖", "as `aletheia-lora` ranks layers"
        ),
        FeatureInfo(
            "relative_gradient_norm",
            "size of the gradient against the weights",
            "‖ḡ‖ / ‖θ‖",
            "auto-RGN, Surgical Fine-Tuning (arXiv 2210.11466)",
        ),
        FeatureInfo(
            "gradient_signal",
            "squared true gradient, without the noise of sampling",
            "mean over m ≠ n of ⟨g_m, g_n⟩",
            "unbiased U-statistic",
        ),
        FeatureInfo(
            "gradient_snr",
            "signal-to-noise ratio of the gradient",
            "‖E g‖² / tr Var g, both unbiased",
            "An Empirical Model of Large-Batch Training (arXiv 1812.06162), eq. 2.8 inverted",
        ),
        FeatureInfo(
            "fisher_trace",
            "how strongly single groups pull",
            "mean over m of ‖g_m‖²",
            "empirical Fisher information over groups",
        ),
        FeatureInfo(
            "fisher_gain",
            "gain of a natural-gradient step, direction and slope from disjoint halves",
            "⟨g_A, (F + ε)⁻¹ g_B⟩, F = mean of g_m², ε = 0.001 × mean F",
            "Natural Gradient Works Efficiently in Learning (Amari 1998), diagonal form",
        ),
        FeatureInfo(
            "adam_gain",
            "gain of Adam's first step per unit of learning rate, from disjoint halves",
            "½ (⟨sign g_A, g_B⟩ + ⟨sign g_B, g_A⟩)",
            "Adam (arXiv 1412.6980), algorithm 1 at t = 1",
        ),
    )

    def steps(self, shared: ProbeInput) -> int:
        """One per group."""
        return len(shared.rollouts.groups)

    def measure(
        self, shared: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> tuple[Mapping[str, np.ndarray], int]:
        """Stream one backward pass per group; see the class's features.

        Raises LayerpickError with fewer than two groups: the statistics compare groups.
        """
        groups = shared.rollouts.groups
        if len(groups) < 2:
            raise LayerpickError("The gradient probes compare prompts: give --prompts 2 or more.")
        layers = shared.model.layers
        sketcher = GradientSketcher(layers, len(groups), shared.seed)
        tokens = 0
        signal: list[int] = []
        with sketcher.listening():
            for index in range(len(groups)):
                sketcher.next_micro_batch(index)
                loss = group_loss(shared, index)
                if loss is not None:
                    loss.backward()
                    tokens += sum(len(t.tokens) for t in groups[index])
                    signal.append(index)
                on_done(1)
        halves = _halves(signal, len(groups))
        rows = []
        for layer, module in enumerate(layers):
            weight_norm = _norm(module)
            rows.append(gradient_statistics(sketcher.sketch(layer), *halves, weight_norm))
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}, tokens


def group_loss(shared: ProbeInput, group: int) -> Tensor | None:
    """Advantage-weighted log-likelihood loss of one group; None if all its advantages are 0."""
    rollouts = shared.rollouts
    trajectories = rollouts.groups[group]
    advantages = shared.algorithm.advantages(trajectories)
    if not any(np.any(turns != 0) for turns in advantages):
        return None
    longest = rollouts.max_trajectory_tokens
    coefficients = [
        turns * shared.algorithm.token_weight(trajectory.generated, longest)
        for trajectory, turns in zip(trajectories, advantages, strict=True)
    ]
    batch = collate(trajectories, shared.model.tokenizer.pad_token_id, shared.model.device)
    log_probs = token_log_probs(shared.model.model, batch, rollouts.origin.temperature)
    weights = token_values(trajectories, coefficients, batch)
    return -(weights * log_probs).sum() / len(trajectories)


def gradient_statistics(
    sketch: LayerSketch, half_a: list[int], half_b: list[int], weight_norm: float
) -> dict[str, float]:
    """The features of one layer from its micro-batch gradients."""
    values, weights = sketch.values.double(), sketch.weights
    count = len(values)
    mean = values.mean(dim=0)
    mean_square = float((weights * mean.square()).sum())
    fisher_trace = float(sketch.squared_norms.mean())
    own = (weights * values.square()).sum()  # the estimate of Σ‖g_m‖², whose error cancels below
    signal = (count**2 * mean_square - float(own)) / (count * (count - 1))
    variance = max(fisher_trace - signal, 0.0)
    a, b = values[half_a].mean(dim=0), values[half_b].mean(dim=0)
    fisher = values.square().mean(dim=0)
    damping = FISHER_DAMPING * float((weights * fisher).sum() / weights.sum())
    fisher_gain = (weights * a * b / (fisher + damping)).sum() if damping > 0 else 0.0
    adam_gain = 0.5 * (weights * (a.sign() * b + b.sign() * a)).sum()
    return {
        "gradient_norm": mean_square**0.5,
        "relative_gradient_norm": mean_square**0.5 / weight_norm,
        "gradient_signal": signal,
        "gradient_snr": signal / variance if variance > 0 else 0.0,
        "fisher_trace": fisher_trace,
        "fisher_gain": float(fisher_gain),
        "adam_gain": float(adam_gain),
    }


def _halves(signal: list[int], count: int) -> tuple[list[int], list[int]]:
    """Disjoint halves of the groups, with those that carry signal dealt out evenly."""
    silent = [index for index in range(count) if index not in set(signal)]
    order = signal + silent
    return order[0::2], order[1::2]


def _norm(module: torch.nn.Module) -> float:
    squares = [parameter.detach().float().square().sum() for parameter in module.parameters()]
    return float(torch.stack(squares).sum().sqrt())
