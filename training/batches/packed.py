"""Trajectories packed for the update: the samples of a prompt share one reading of it.

A row holds a prompt, padded on the left, then several samples of it one after another, padded on
the right. A token sees the prompt and its own sample, and takes the position that it would have
had alone, so its log-probability is the one it would have had alone. The last token of a sample
is only ever a target and is not read.

Limits: needs a model that takes a mask of any shape. Where `packs` finds that it does not, a row
holds one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerpick.training.batches.padded import collate, token_log_probs
from layerpick.training.episodes.trajectory import Trajectory, Turn
from layerpick.training.models.head import log_probs_of, logits_at


@dataclass(frozen=True)
class PackedBatch:
    """R rows of T columns, the first P of them context; N tokens written by the model.

    The N tokens stand in the order of the trajectories, then of their tokens.
    """

    input_ids: Tensor
    """(R, T), int64."""
    position_ids: Tensor
    """(R, T), int64."""
    attention_mask: Tensor
    """(R, T), int64, with one sample per row; else (R, 1, T, T), float, to be added to scores."""
    places: Tensor
    """(M,), int64: row × T + column of the columns that predict tokens, each named once."""
    place: Tensor
    """(N,), int64: which of the places predicts each token."""
    targets: Tensor
    """(N,), int64: the tokens."""


def pack(
    groups: Sequence[Sequence[Trajectory]], pad_token: int, device: torch.device, dtype: torch.dtype
) -> PackedBatch:
    """One row for each group of trajectories; those of a group begin with the same prompt."""
    context = max(group[0].prompt_length for group in groups)
    width = context + max(sum(_read(sample) for sample in group) for group in groups)
    shape = (len(groups), width)
    tokens = np.full(shape, pad_token, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    segments = np.full(shape, -1, dtype=np.int64)
    places, targets = [], []
    for row, group in enumerate(groups):
        length = group[0].prompt_length
        span = slice(context - length, context)
        tokens[row, span] = group[0].tokens[:length]
        positions[row, span] = np.arange(length)
        segments[row, span] = 0
        start = context
        for number, sample in enumerate(group, start=1):
            span = slice(start, start + _read(sample))
            tokens[row, span] = sample.tokens[length:-1]
            positions[row, span] = np.arange(length, length + _read(sample))
            segments[row, span] = number
            written = np.flatnonzero(sample.model_mask)
            # The first token is predicted by the prompt's last column, which all samples share.
            column = np.where(written == length, context - 1, written - length + start - 1)
            places.append(row * width + column)
            targets.append(np.asarray(sample.tokens)[written])
            start = span.stop
    alone = all(len(group) == 1 for group in groups)
    seen = torch.from_numpy(segments).to(device)
    distinct, place = np.unique(np.concatenate(places), return_inverse=True)
    return PackedBatch(
        torch.from_numpy(tokens).to(device),
        torch.from_numpy(positions).to(device),
        (seen >= 0).long() if alone else _mask(seen, dtype),
        torch.from_numpy(distinct).to(device),
        torch.from_numpy(place).to(device),
        torch.from_numpy(np.concatenate(targets)).to(device),
    )


def _read(sample: Trajectory) -> int:
    """Tokens after the prompt that are read: all but the last."""
    return max(0, len(sample.tokens) - sample.prompt_length - 1)


def _mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """segments (R, T): −1 padding, 0 prompt, else the sample's number; gives (R, 1, T, T)."""
    query, key = segments.unsqueeze(2), segments.unsqueeze(1)
    places = torch.arange(segments.shape[1], device=segments.device)
    causal = places.unsqueeze(1) >= places
    itself = places.unsqueeze(1) == places  # even padding must see something
    visible = causal & ((key == 0) | ((key == query) & (key > 0))) | itself
    hidden = torch.finfo(dtype).min
    return torch.where(visible, 0.0, hidden).to(dtype).unsqueeze(1)


def packed_log_probs(model: Any, batch: PackedBatch, temperature: float) -> Tensor:
    """Log-probability of every written token at the sampling temperature: (N,), float32."""
    logits = logits_at(
        model,
        batch.places,
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    return log_probs_of(logits, batch.targets, temperature, batch.place)


@torch.no_grad()
def packs(model: Any, pad_token: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this model gives packed samples the log-probabilities that they have alone."""
    samples = [
        Trajectory(0, (5, 6, 7, *written), (Turn(3, 3 + len(written), "", 0.0),), 0.0)
        for written in ((8, 9, 10), (11, 12))
    ]
    alone = collate(samples, pad_token, device)
    try:
        packed = packed_log_probs(model, pack([samples], pad_token, device, dtype), 1.0)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False  # this family reads only masks of (rows, tokens)
    expected = token_log_probs(model, alone, 1.0)[alone.written]
    loose = 1e-3 if dtype == torch.float32 else 0.1
    return bool(torch.allclose(packed, expected, rtol=loose, atol=loose))
