"""Rollouts that many policies read again and again: as few tokens, in as few batches, as will do.

Samples of one prompt that are the same are read once. Groups in which nobody earned more than the
others teach nothing: they stand in batches of their own, which only judgements read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import ProbeInput
from layerpick.training.batches.packed import PackedBatch, pack
from layerpick.training.batches.rows import CLASH, ChunkLimits, RowSharing, columns
from layerpick.training.engine.learner import clipped_loss
from layerpick.training.episodes.trajectory import Trajectory

CHUNK_TOKENS, FEWEST_TOKENS = 8192, 256
"""Most tokens of a batch, and those that it may have however large the model."""
CHUNK_BYTES = 5e8
"""What the backward pass of a batch may hold, roughly."""
HELD_PER_LAYER = 24
"""Hidden states that a decoder layer holds for its backward pass, roughly; float32."""
ROW_TOKENS = 1024
"""Columns that a row of several samples may have, where a batch may not have more."""
EPSILON = 0.2
"""The importance ratio counts within 1 ± ε only."""


@dataclass(frozen=True, eq=False)
class Text:
    """A packed batch of trajectories, and what a policy is to learn from it."""

    trajectories: tuple[Trajectory, ...]
    reading: np.ndarray
    """(trajectories,), int64: which of the samples in the batch each of them is."""
    lengths: np.ndarray
    """(samples,), int64: tokens written; N in all."""
    batch: PackedBatch
    weights: Tensor
    """(N,), float32: for each written token w_i / number of trajectories, summed over those that
    are this sample."""
    advantages: Tensor
    """(N,), float32."""

    @property
    def teaches(self) -> bool:
        """Whether anything can be learned from it."""
        return bool(self.advantages.any())

    @property
    def tokens(self) -> int:
        """Tokens of the batch, padding included."""
        return self.batch.input_ids.numel()

    def loss(self, log_probs: Tensor, base: Tensor) -> Tensor:
        """Clipped importance-ratio loss, summed over this text; log-probabilities (N,)."""
        return (self.weights * clipped_loss(log_probs, base, self.advantages, EPSILON)).sum()

    def by_trajectory(self, values: Tensor) -> np.ndarray:
        """(trajectories,), float64: sums of a token's values, shape (N,)."""
        owners = np.repeat(np.arange(len(self.lengths)), self.lengths)
        weights = values.double().cpu().numpy()
        return np.bincount(owners, weights, minlength=len(self.lengths))[self.reading]


@dataclass(frozen=True)
class _Sample:
    """Trajectories of one prompt that are the same."""

    copies: list[Trajectory]
    advantages: np.ndarray
    """(turns,)."""

    @property
    def trajectory(self) -> Trajectory:
        return self.copies[0]


def texts(
    probe_input: ProbeInput, groups: Sequence[int], dtype: torch.dtype = torch.float32
) -> Iterator[Text]:
    """The rollouts of some groups, packed for passes in `dtype`: those that teach first."""
    by_group = [_samples(probe_input, index) for index in groups]
    total = sum(len(sample.copies) for samples in by_group for sample in samples)
    most = _chunk_tokens(probe_input)
    sharing = RowSharing(probe_input.model, ChunkLimits(max(most, ROW_TOKENS), ROW_TOKENS))
    for teaches in (True, False):
        rows: list[list[_Sample]] = []
        for samples in by_group:
            if samples and teaches == any(np.any(sample.advantages) for sample in samples):
                size = sharing.samples_per_row([sample.trajectory for sample in samples])
                rows += [samples[start : start + size] for start in range(0, len(samples), size)]
        for chunk in _chunks(rows, most, sharing):
            yield _text(probe_input, chunk, total, dtype)


def _samples(probe_input: ProbeInput, index: int) -> list[_Sample]:
    """Different samples of a group; trajectories in which nothing was written are left out."""
    group = probe_input.rollouts.groups[index]
    found: dict[tuple, _Sample] = {}
    for trajectory, advantages in zip(group, probe_input.algorithm.advantages(group), strict=True):
        if trajectory.generated:
            spans = tuple((turn.start, turn.end) for turn in trajectory.turns)
            key = (trajectory.tokens, spans, advantages.tobytes())
            found.setdefault(key, _Sample([], advantages)).copies.append(trajectory)
    return list(found.values())


def _text(
    probe_input: ProbeInput, rows: Sequence[Sequence[_Sample]], total: int, dtype: torch.dtype
) -> Text:
    model, longest = probe_input.model, probe_input.rollouts.max_trajectory_tokens
    batch = pack(
        [[sample.trajectory for sample in row] for row in rows],
        model.tokenizer.pad_token_id,
        model.device,
        dtype,
    )
    samples = [sample for row in rows for sample in row]
    advantages, weights = [], []
    for sample in samples:
        lengths = [turn.end - turn.start for turn in sample.trajectory.turns]
        advantages.append(np.repeat(sample.advantages, lengths))
        generated = sample.trajectory.generated
        weight = len(sample.copies) * probe_input.algorithm.token_weight(generated, longest) / total
        weights.append(np.full(generated, weight))
    return Text(
        tuple(trajectory for sample in samples for trajectory in sample.copies),
        np.repeat(np.arange(len(samples)), [len(sample.copies) for sample in samples]),
        np.array([sample.trajectory.generated for sample in samples]),
        batch,
        _floats(weights, model.device),
        _floats(advantages, model.device),
    )


def _floats(parts: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(device)


def _chunk_tokens(probe_input: ProbeInput) -> int:
    """Tokens of a batch whose backward pass, logits counted thrice, holds about CHUNK_BYTES."""
    config = probe_input.model.model.config.get_text_config(decoder=True)
    numbers = HELD_PER_LAYER * probe_input.layer_count * config.hidden_size + 3 * config.vocab_size
    tokens = CHUNK_BYTES / (numbers * torch.float32.itemsize)
    return int(np.clip(tokens, FEWEST_TOKENS, CHUNK_TOKENS))


def _chunks(
    rows: Sequence[list[_Sample]], most: int, sharing: RowSharing
) -> Iterator[list[list[_Sample]]]:
    """Consecutive prompts that fill a padded batch of at most `most` tokens, or parts of one.

    See `CLASH` for what else does not stand in a batch together.
    """
    chunk: list[list[_Sample]] = []
    longest = 0
    masks: frozenset[str] = frozenset()
    for _, own in groupby(rows, key=lambda row: row[0].trajectory.group):
        prompt = list(own)
        length = max(columns([sample.trajectory for sample in row]) for row in prompt)
        longest = max(longest, length)
        samples = [[sample.trajectory for sample in row] for row in prompt]
        masks = sharing.mix(samples, masks)
        full = longest * (len(chunk) + len(prompt)) > most
        if chunk and (full or masks == CLASH):
            yield chunk
            chunk, longest = [], length
            masks = sharing.mix(samples)
        chunk += prompt
        at_a_time = max(1, most // longest)
        while len(chunk) > at_a_time:  # a prompt alone is too much
            yield chunk[:at_a_time]
            chunk = chunk[at_a_time:]
    if chunk:
        yield chunk
