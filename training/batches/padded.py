"""Trajectories as padded tensors, and the policy's log-probabilities on them.

The layout is TRL's: context padded on the left, what follows padded on the right, so that the
first token that the model wrote stands in one column and logits are needed from there on only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.models.head import log_probs_of, logits_at


@dataclass(frozen=True)
class Batch:
    """Padded trajectories: P columns of context, then C columns from the first written token."""

    input_ids: Tensor
    """(rows, P + C), int64."""
    attention_mask: Tensor
    """(rows, P + C), int64."""
    position_ids: Tensor
    """(rows, P + C), int64."""
    written: Tensor
    """(rows, C), bool: the model wrote this token."""

    @property
    def columns(self) -> int:
        """C: columns with log-probabilities."""
        return self.written.shape[1]

    @property
    def targets(self) -> Tensor:
        """(rows, C), int64: the tokens that the log-probabilities are of."""
        return self.input_ids[:, -self.columns :]


def collate(trajectories: Sequence[Trajectory], pad_token: int, device: torch.device) -> Batch:
    """Pad trajectories into one batch."""
    context = max(trajectory.prompt_length for trajectory in trajectories)
    columns = max(len(t.tokens) - t.prompt_length for t in trajectories)
    shape = (len(trajectories), context + columns)
    input_ids = np.full(shape, pad_token, dtype=np.int64)
    attention = np.zeros(shape, dtype=np.int64)
    written = np.zeros(shape, dtype=bool)
    for row, trajectory in enumerate(trajectories):
        start = context - trajectory.prompt_length
        span = slice(start, start + len(trajectory.tokens))
        input_ids[row, span] = trajectory.tokens
        attention[row, span] = 1
        written[row, span] = trajectory.model_mask
    positions = np.maximum(attention.cumsum(axis=1) - 1, 0)
    return Batch(
        torch.from_numpy(input_ids).to(device),
        torch.from_numpy(attention).to(device),
        torch.from_numpy(positions).to(device),
        torch.from_numpy(written[:, context:]).to(device),
    )


def token_values(
    trajectories: Sequence[Trajectory], values: Sequence[np.ndarray], batch: Batch
) -> Tensor:
    """Spread per-turn values over the tokens of each turn: (rows, C), float32, 0 elsewhere."""
    spread = np.zeros(tuple(batch.written.shape), dtype=np.float32)
    for row, (trajectory, turns) in enumerate(zip(trajectories, values, strict=True)):
        origin = trajectory.prompt_length
        for turn, value in zip(trajectory.turns, turns, strict=True):
            spread[row, turn.start - origin : turn.end - origin] = value
    return torch.from_numpy(spread).to(batch.written.device)


def predicting_places(inputs: Tensor, columns: int) -> Tensor:
    """(rows, C), int64: of inputs (rows, T, …), what predicts each of the last C columns.

    Counted through the inputs, row × T + column, as `logits_at` takes it.
    """
    rows, width = inputs.shape[:2]
    places = torch.arange(rows * width, device=inputs.device).view(rows, width)
    return places[:, width - columns - 1 : -1]


def token_log_probs(model: Any, batch: Batch, temperature: float) -> Tensor:
    """Log-probability of each written token at the sampling temperature: (rows, C), float32.

    0 where nothing was written.
    """
    logits = logits_at(
        model,
        predicting_places(batch.input_ids, batch.columns)[batch.written],
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    found = log_probs_of(logits, batch.targets[batch.written], temperature)
    return found.new_zeros(batch.written.shape).index_put((batch.written,), found)
