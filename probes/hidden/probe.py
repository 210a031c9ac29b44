"""What each layer does to the hidden state: one forward pass serves all of these.

Means are over the tokens that the model wrote, trajectory by trajectory. Attention is computed
step by step ("eager"), the only way in which models hand out its weights; a micro-batch is one
group, so memory is that of the attention weights of one layer and one group.

Limits: attention entropy and the logit lens are left out where a model's attention cannot be
computed step by step, or where nothing but layers reads the last layer's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import FeatureInfo, Measurement, Pace, Probe, ProbeInput
from layerpick.probes.hidden.attention import AttentionEntropy
from layerpick.probes.hidden.lens import LogitLens
from layerpick.probes.hidden.separability import separability
from layerpick.probes.reading.passes import (
    attention_as,
    collated,
    groups_with_signal,
    observing,
    read_at,
    written_columns,
)
from layerpick.training.errors import LayerpickError

PASSES = 2.5
"""What a pass with all its statistics takes, over one without."""


class HiddenProbe(Probe):
    """Block influence, norm growth, attention entropy, logit lens and separability."""

    name = "hidden"
    needs = "forward"
    headings: ClassVar[Mapping[str, str]] = {"block_influence": "influence"}
    features = (
        FeatureInfo(
            "block_influence",
            "how far the layer turns the hidden state",
            "mean of 1 − cos(input, output)",
            "ShortGPT (arXiv 2403.03853), eq. 1",
        ),
        FeatureInfo(
            "norm_growth", "how much the layer adds to it", "mean of ln(‖output‖ / ‖input‖)", "–"
        ),
        FeatureInfo(
            "attention_entropy",
            "how widely the layer's heads look, in nats",
            "mean over heads of −Σ p ln p",
            "Stabilizing Transformer Training (arXiv 2303.06296)",
        ),
        FeatureInfo(
            "lens_entropy",
            "how undecided the next token is after the layer, in nats",
            "mean entropy of softmax(head(norm(output)))",
            "logit lens (nostalgebraist 2020)",
        ),
        FeatureInfo(
            "lens_entropy_drop",
            "how much the layer decides",
            "lens entropy of the input − of the output",
            "logit lens (nostalgebraist 2020)",
        ),
        FeatureInfo(
            "separability",
            "can a line tell rewarded from unrewarded completions of a prompt",
            "AUC of ridge on the mean hidden state, prompts left out in turn",
            "linear classifier probes (arXiv 1610.01644)",
        ),
    )

    def seconds(self, probe_input: ProbeInput, pace: Pace) -> float:
        """A pass over the trajectories read, and what is computed from every layer's output."""
        read = probe_input.sizes.trajectories / len(probe_input.rollouts.trajectories)
        return PASSES * min(1.0, read) * pace.forward

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per group read."""
        return len(read_groups(probe_input))

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """One forward pass over the groups that it reads; see the class's features."""
        groups = read_groups(probe_input)
        meter = _Meter(probe_input, passes=len(groups))
        with torch.no_grad(), attention_as(probe_input.model.model, "eager"):
            for group in groups:
                meter.read(group)
                on_done(1)
        return meter.measurement(groups)


def read_groups(probe_input: ProbeInput) -> list[int]:
    """Groups that the forward probes read, those that carry signal first."""
    signal = groups_with_signal(probe_input)
    silent = sorted(set(range(len(probe_input.rollouts.groups))) - set(signal))
    size = probe_input.rollouts.origin.group_size
    return [*signal, *silent][: max(1, probe_input.sizes.trajectories // size)]


class _Meter:
    """Sums over what has been read, layer by layer."""

    def __init__(self, probe_input: ProbeInput, passes: int):
        self._probe_input = probe_input
        self._influence: list[list[Tensor]] = [[] for _ in probe_input.model.layers]
        self._growth: list[list[Tensor]] = [[] for _ in probe_input.model.layers]
        self._pooled: list[list[Tensor]] = [[] for _ in probe_input.model.layers]
        self._attention = AttentionEntropy(probe_input.model.layers)
        per_pass = -(-probe_input.sizes.lens_positions // passes)
        self._lens = LogitLens(probe_input.model, per_pass, probe_input.seed)
        self._tokens = 0

    def read(self, group: int) -> None:
        """One forward pass of one group."""
        trajectories = self._probe_input.rollouts.groups[group]
        trajectories = tuple(t for t in trajectories if t.generated)
        if not trajectories:
            return
        batch = collated(self._probe_input, trajectories)
        written = written_columns(batch)

        def observe(layer: int, given: Tensor, made: Tensor) -> None:
            before, after = given.float(), made.float()
            cosine = torch.cosine_similarity(before, after, dim=-1)
            growth = (after.norm(dim=-1) / before.norm(dim=-1).clamp(min=1e-12)).log()
            self._influence[layer].append(_row_means(1 - cosine, written))
            self._growth[layer].append(_row_means(growth, written))
            self._pooled[layer].append(_row_means(after, written))
            self._lens.take(layer, given, made)

        layers = self._probe_input.model.layers
        with (
            observing(layers, observe),
            self._attention.listening(written),
            self._lens.reading(written),
        ):
            logits = read_at(self._probe_input, batch, self._lens.places())
        self._lens.finish(logits)
        self._tokens += sum(len(t.tokens) for t in trajectories)

    def measurement(self, groups: Sequence[int]) -> Measurement:
        features = {
            "block_influence": _layer_means(self._influence),
            "norm_growth": _layer_means(self._growth),
        }
        left_out: dict[str, str] = {}
        optional: dict[tuple[str, ...], Callable[[], dict[str, np.ndarray]]] = {
            ("attention_entropy",): self._attention.features,
            ("lens_entropy", "lens_entropy_drop"): self._lens.features,
            ("separability",): lambda: self._separability(groups),
        }
        for names, compute in optional.items():
            try:
                features.update(compute())
            except LayerpickError as error:
                left_out.update(dict.fromkeys(names, str(error)))
        return Measurement(features, self._tokens, left_out)

    def _separability(self, groups: Sequence[int]) -> dict[str, np.ndarray]:
        chosen = [
            t for group in groups for t in self._probe_input.rollouts.groups[group] if t.generated
        ]
        rewards = np.array([t.reward for t in chosen])
        prompts = np.array([t.group for t in chosen])
        hidden = [torch.cat(parts).cpu().double().numpy() for parts in self._pooled]
        return {"separability": np.array([separability(x, rewards, prompts) for x in hidden])}


def _row_means(values: Tensor, written: Tensor) -> Tensor:
    """Mean over each row's written tokens: (rows, T, …) gives (rows, …)."""
    mask = written.to(values.dtype).reshape(*written.shape, *[1] * (values.ndim - 2))
    return (values * mask).sum(dim=1) / mask.sum(dim=1)


def _layer_means(values: Sequence[Sequence[Tensor]]) -> np.ndarray:
    return np.array([float(torch.cat(list(parts)).double().mean()) for parts in values])
