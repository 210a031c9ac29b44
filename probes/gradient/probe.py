"""Statistics of the policy gradient at the sampling policy, all from one streaming backward.

One micro-batch is one group: its gradient g_m is that of the advantage-weighted log-likelihood
−(1/G) Σ_i w_i Σ_t A_it log π(a_it), the GRPO gradient where the importance ratio is 1. Each
parameter's gradient is reduced to a sketch and freed as soon as it exists, so memory stays near
weights + activations of one group. A group of many tokens is read in parts (`groups`), and the
layers' gradients are held until the last. Groups without reward variance have zero gradient; they
count and cost nothing. For a few groups two more backward passes split the gradient by class of
token.
Rollouts of another task, where given, are read alike and compared with by their mean gradient.

Limits: inner products of layers with more than 131,072 parameters are unbiased estimates from a
random subset of coordinates, exact ones below that; squared norms of whole layers and of module
kinds are always exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from layerpick.probes.base import WITH_BACKWARD, FeatureInfo, Measurement, Pace, Probe, ProbeInput
from layerpick.probes.gradient.groups import GroupReadings
from layerpick.probes.gradient.sketch import KINDS, GradientSketcher, LayerSketch
from layerpick.probes.gradient.statistics import (
    alternating_halves,
    cosine_of_means,
    difficulty_halves,
    expected_gains,
    gram_matrices,
    mean_cosine,
    size_and_signal,
)
from layerpick.probes.reading.passes import groups_with_signal
from layerpick.probes.reading.token_losses import TOKEN_CLASSES, mean_rewards
from layerpick.training.errors import LayerpickError

PART_STATISTICS = ("gradient_norm", "gradient_snr")
SEPARATE = TOKEN_CLASSES[:-1]
"""Classes with a backward pass of their own; the last is what they leave of the whole."""
SECONDS_PER_GROUP = 0.03
"""On one core: statistics of a group's gradient, whatever the model."""


def _part_features() -> tuple[FeatureInfo, ...]:
    about = {
        "gradient_norm": ("size of the mean gradient", "‖ḡ‖"),
        "gradient_snr": ("signal-to-noise ratio of the gradient", "‖E g‖² / tr Var g"),
    }
    source = {
        "first_tokens": "first 4 tokens of each turn",
        "high_entropy_tokens": "the 20% of highest entropy, Beyond the 80/20 Rule "
        "(arXiv 2506.01939)",
        "other_tokens": "neither first nor high in entropy",
    }
    return tuple(
        FeatureInfo(
            f"{name}_{part}",
            f"{about[name][0]}, {part.replace('_', ' ')} alone",
            about[name][1],
            source.get(part, "parameters by their path in the layer"),
        )
        for part in (*KINDS, *TOKEN_CLASSES)
        for name in PART_STATISTICS
    )


class GradientProbe(Probe):
    """Size, signal, agreement and expected effect of each layer's policy gradient."""

    name = "gradient"
    needs = "backward"
    headings: ClassVar[Mapping[str, str]] = {
        "gradient_snr": "gradient SNR",
        "fisher_gain": "Fisher gain",
        "adam_gain": "Adam gain",
        "gradient_norm": "gradient",
    }
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
        FeatureInfo(
            "gradient_agreement",
            "do prompts pull the same way",
            "mean over m ≠ n of cos(g_m, g_n), groups that carry signal",
            "gradient confusion (arXiv 1904.06963), mean in place of minimum",
        ),
        FeatureInfo(
            "difficulty_agreement",
            "do easier and harder prompts pull the same way",
            "cos(ḡ_easier, ḡ_harder), halves by mean reward",
            "gradient similarity between tasks (arXiv 2001.06782), within one",
        ),
        FeatureInfo(
            "task_agreement",
            "do this task and another one pull the same way (with --also)",
            "cos(ḡ, ḡ_other)",
            "gradient similarity between tasks (arXiv 2001.06782)",
        ),
        *_part_features(),
    )

    def seconds(self, probe_input: ProbeInput, pace: Pace) -> float:
        """A pass forward and back, and what is kept of every group."""
        return WITH_BACKWARD * pace.forward + SECONDS_PER_GROUP * len(probe_input.rollouts.groups)

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per group, of the other task too."""
        return sum(len(each.groups) for each in (probe_input.rollouts, probe_input.other) if each)

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """Stream one backward pass per group; see the class's features.

        Raises LayerpickError with fewer than two groups: the statistics compare groups.
        """
        if len(probe_input.rollouts.groups) < 2:
            raise LayerpickError("The gradient probes compare prompts: give --prompts 2 or more.")
        other = replace(probe_input, rollouts=probe_input.other) if probe_input.other else None
        plan = _plan(probe_input, other)
        sketcher = GradientSketcher(probe_input.model.layers, plan.places, probe_input.seed)
        with sketcher.listening():
            tokens = _stream(probe_input, sketcher, plan, on_done)
            if other is not None:
                tokens += _stream_other(other, sketcher, plan, on_done)
        rows = [
            _layer_features(probe_input, sketcher.sketch(layer), module, plan)
            for layer, module in enumerate(probe_input.model.layers)
        ]
        left_out = {}
        if other is not None and not (plan.signal and plan.other):
            left_out["task_agreement"] = "one of the two tasks has no group that carries signal"
        if len(plan.signal) < 2:
            reason = "fewer than two groups carry signal"
            names = ("gradient_agreement", "difficulty_agreement")
            left_out.update(dict.fromkeys(names, reason))
        if len(plan.split) < 2:
            reason = "fewer than two groups were split by class of token"
            parts = (f"{name}_{part}" for part in TOKEN_CLASSES for name in PART_STATISTICS)
            left_out.update(dict.fromkeys(parts, reason))
        features = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return Measurement(features, tokens, left_out)


@dataclass(frozen=True)
class _Plan:
    """Micro-batches: all groups, then those split, class after class, then the other task's."""

    groups: int
    signal: list[int]
    """Groups that carry signal."""
    split: list[int]
    """Those of them that are split by class of token."""
    other: list[int]
    """Groups of the other task that carry signal."""

    @property
    def own(self) -> int:
        """Micro-batches of this task."""
        return self.groups + len(SEPARATE) * len(self.split)

    @property
    def places(self) -> int:
        """All micro-batches."""
        return self.own + len(self.other)


def _plan(probe_input: ProbeInput, other: ProbeInput | None) -> _Plan:
    signal = groups_with_signal(probe_input)
    return _Plan(
        len(probe_input.rollouts.groups),
        signal,
        signal[: probe_input.sizes.token_class_groups],
        groups_with_signal(other) if other is not None else [],
    )


def _stream(
    probe_input: ProbeInput, sketcher: GradientSketcher, plan: _Plan, on_done: Callable[[int], None]
) -> int:
    """Gradients of this task's groups, whole and by class; returns the tokens read."""
    tokens = 0
    for group in range(plan.groups):
        if group in plan.signal:
            read = GroupReadings(probe_input, group)
            if group in plan.split:
                place = plan.groups + plan.split.index(group)
                _split_by_class(sketcher, read, place, len(plan.split))
            _take_whole(sketcher, read, group)
            tokens += read.tokens
        on_done(1)
    return tokens


def _stream_other(
    other: ProbeInput, sketcher: GradientSketcher, plan: _Plan, on_done: Callable[[int], None]
) -> int:
    """Gradients of the other task's groups; returns the tokens read."""
    tokens = 0
    for place, group in enumerate(plan.other, start=plan.own):
        read = GroupReadings(other, group)
        _take_whole(sketcher, read, place)
        tokens += read.tokens
        on_done(1)
    on_done(len(other.rollouts.groups) - len(plan.other))
    return tokens


def _take_whole(sketcher: GradientSketcher, group: GroupReadings, place: int) -> None:
    with sketcher.micro_batch(place, in_parts=group.in_parts):
        for reading in group:
            reading.losses.sum().backward()


def _split_by_class(
    sketcher: GradientSketcher, group: GroupReadings, place: int, stride: int
) -> None:
    classes = group.classes()
    for index in range(len(SEPARATE)):
        with sketcher.micro_batch(place + index * stride, in_parts=group.in_parts):
            for reading, own in zip(group, classes, strict=True):
                chosen = own == index
                if bool((chosen & (reading.losses != 0)).any()):
                    reading.losses[chosen].sum().backward(retain_graph=not group.in_parts)


def _layer_features(
    probe_input: ProbeInput,
    sketch: LayerSketch,
    module: torch.nn.Module,
    plan: _Plan,
) -> dict[str, float]:
    count, signal, split = plan.groups, plan.signal, plan.split
    by_kind, norms = gram_matrices(sketch), sketch.squared_norms[:, :count].numpy()
    everything = by_kind.sum(axis=0)
    gram = everything[:count, :count]
    features = size_and_signal(gram, norms.sum(axis=0))
    features["relative_gradient_norm"] = features["gradient_norm"] / _norm(module)
    features.update(expected_gains(sketch, *alternating_halves(signal, count)))
    parts = {
        kind: size_and_signal(by_kind[index, :count, :count], norms[index])
        for index, kind in enumerate(KINDS)
    }
    if len(signal) >= 2:
        features["gradient_agreement"] = mean_cosine(gram[np.ix_(signal, signal)])
        halves = difficulty_halves(signal, mean_rewards(probe_input))
        features["difficulty_agreement"] = cosine_of_means(gram, *halves)
    if signal and plan.other:
        others = range(plan.own, plan.places)
        features["task_agreement"] = cosine_of_means(everything, signal, others)
    if len(split) >= 2:
        for part, mix in _class_mixes(split, count).items():
            parts[part] = size_and_signal(mix @ everything[: plan.own, : plan.own] @ mix.T)
    for part, statistics in parts.items():
        features.update({f"{name}_{part}": statistics[name] for name in PART_STATISTICS})
    return features


def _class_mixes(split: list[int], count: int) -> dict[str, np.ndarray]:
    """(split groups, all micro-batches) by class: which sum of them is the class's gradient."""
    size = len(split)
    rest = np.zeros((size, count + len(SEPARATE) * size))
    rest[range(size), split] = 1
    mixes = {}
    for index, name in enumerate(SEPARATE):
        mixes[name] = np.zeros_like(rest)
        mixes[name][range(size), range(count + index * size, count + (index + 1) * size)] = 1
        rest -= mixes[name]
    return {**mixes, TOKEN_CLASSES[-1]: rest}


def _norm(module: torch.nn.Module) -> float:
    squares = [parameter.detach().float().square().sum() for parameter in module.parameters()]
    return float(torch.stack(squares).sum().sqrt())
