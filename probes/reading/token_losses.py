"""The policy-gradient loss of one group at the sampling policy, token by token.

The loss of a group of G trajectories is −(1/G) Σ_i w_i Σ_t A_it log π(a_it), whose gradient is that
of the importance-ratio objective where the ratio is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import ProbeInput
from layerpick.probes.reading.passes import best_and_worst, collated, read_at
from layerpick.training.batches.padded import Batch, predicting_places, token_values
from layerpick.training.batches.rows import chunk_limits
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.models.head import log_probs_of

MOST_TOKENS = 8192
"""That are read at a time with a graph, padding included."""
FIRST_TOKENS = 4
"""Tokens at the beginning of each turn that count as its first."""
HIGH_ENTROPY_SHARE = 0.2
"""Share of a group's written tokens that count as high in entropy (arXiv 2506.01939)."""
TOKEN_CLASSES = ("first_tokens", "high_entropy_tokens", "other_tokens")


@dataclass(frozen=True)
class TokenLosses:
    """Trajectories of one group, read once."""

    losses: Tensor
    """(rows, C), float32, in the graph: their sum is their share of the group's loss."""
    batch: Batch
    logits: Tensor
    """(rows, C, V): what predicts each of the C columns."""


def parts_of(probe_input: ProbeInput, group: int) -> list[slice]:
    """Trajectories of a group that are read at a time, so that memory is bounded; often all."""
    trajectories = probe_input.rollouts.groups[group]
    limits = chunk_limits(probe_input.model, MOST_TOKENS)
    width = max(len(trajectory.tokens) for trajectory in trajectories)
    predicted = width - min(trajectory.prompt_length for trajectory in trajectories)
    size = max(1, min(limits.tokens // width, limits.predicted // max(1, predicted)))
    return [slice(start, start + size) for start in range(0, len(trajectories), size)]


def token_losses(probe_input: ProbeInput, group: int, part: slice = slice(None)) -> TokenLosses:
    """Read a group, or part of its trajectories, and compute the group's loss at each token."""
    whole = probe_input.rollouts.groups[group]
    trajectories = whole[part]
    batch = collated(probe_input, trajectories)
    weights = token_values(trajectories, _coefficients(probe_input, whole)[part], batch)
    places = predicting_places(batch.input_ids, batch.columns)
    logits = read_at(probe_input, batch, places.flatten()).unflatten(0, places.shape)
    log_probs = log_probs_of(logits, batch.targets, probe_input.rollouts.origin.temperature)
    return TokenLosses(-weights * log_probs / len(whole), batch, logits.detach())


@dataclass(frozen=True)
class Contrast:
    """Completions that earned most and least, for probes that read only a few."""

    batch: Batch
    weights: Tensor
    """(rows, C), float32: w_i A_it, with advantages from whole groups."""
    tokens: int


def contrast(probe_input: ProbeInput, trajectories: int) -> Contrast:
    """Best and worst completions of trajectories / 2 prompts."""
    pairs = best_and_worst(probe_input, max(1, trajectories // 2))
    chosen = [trajectory for pair in pairs for trajectory in pair]
    batch = collated(probe_input, chosen)
    coefficients = []
    for trajectory in chosen:
        group = probe_input.rollouts.groups[trajectory.group]
        coefficients.append(_coefficients(probe_input, group)[group.index(trajectory)])
    tokens = sum(len(trajectory.tokens) for trajectory in chosen)
    return Contrast(batch, token_values(chosen, coefficients, batch), tokens)


def _coefficients(probe_input: ProbeInput, group: Sequence[Trajectory]) -> list[np.ndarray]:
    """Per trajectory, (turns,): w_i A_it."""
    longest = probe_input.rollouts.max_trajectory_tokens
    return [
        turns * probe_input.algorithm.token_weight(trajectory.generated, longest)
        for trajectory, turns in zip(group, probe_input.algorithm.advantages(group), strict=True)
    ]


def high_entropy(entropies: Tensor) -> Tensor:
    """The entropy above which a token's is in the top share; of all written tokens of a group."""
    return torch.quantile(entropies, 1 - HIGH_ENTROPY_SHARE)


def token_classes(
    trajectories: Sequence[Trajectory], written: Tensor, entropies: Tensor, high: Tensor
) -> Tensor:
    """(rows, C), int64: index into TOKEN_CLASSES, −1 where nothing was written.

    The first tokens of each turn, then those whose entropy is above `high`, then the rest.
    """
    classes = torch.full(written.shape, -1, device=written.device)
    classes[written] = TOKEN_CLASSES.index("other_tokens")
    classes[written & (entropies > high)] = TOKEN_CLASSES.index("high_entropy_tokens")
    for row, trajectory in enumerate(trajectories):
        origin = trajectory.prompt_length
        for turn in trajectory.turns:
            end = min(turn.end, turn.start + FIRST_TOKENS)
            classes[row, turn.start - origin : end - origin] = TOKEN_CLASSES.index("first_tokens")
    return classes


@torch.no_grad()
def entropy(logits: Tensor, temperature: float) -> Tensor:
    """Entropy in nats of softmax(logits / T) over the last axis; float32."""
    # One row at a time: a float32 copy of all logits can be larger than the model.
    flat = logits.reshape(-1, *logits.shape[-2:]) if logits.ndim > 2 else logits.unsqueeze(0)
    rows = []
    for row in flat:
        log_probs = torch.log_softmax(row.float() / (temperature or 1.0), dim=-1)
        rows.append(-(log_probs.exp() * log_probs).sum(dim=-1))
    return torch.stack(rows).reshape(logits.shape[:-1])


def mean_rewards(probe_input: ProbeInput) -> list[float]:
    """Mean reward of each group."""
    return [float(np.mean([t.reward for t in group])) for group in probe_input.rollouts.groups]
