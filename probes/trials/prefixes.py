"""Rollouts that many policies read again and again, each from its own layer on.

A policy that differs from the model in layer k alone sees the model's own hidden states below it.
Those are computed once; a policy's pass starts at its layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.base import ProbeInput
from layerpick.probes.reading.passes import observing
from layerpick.training.batches.packed import (
    PackedBatch,
    pack,
    packed_log_probs,
)
from layerpick.training.batches.rows import RowSharing, columns
from layerpick.training.engine.learner import clipped_loss
from layerpick.training.engine.stacked import replaced_forward
from layerpick.training.episodes.trajectory import Trajectory

CHUNK_TOKENS, FEWEST_TOKENS = 8192, 512
"""Most tokens of a batch, and those that it may have however large the model."""
CHUNK_BYTES = 1e9
"""What the backward pass of a batch may hold, roughly."""
HELD_PER_LAYER = 16
"""Hidden states that a decoder layer holds for its backward pass, roughly."""
EPSILON = 0.2
"""The importance ratio counts within 1 ± ε only."""


@dataclass(frozen=True)
class Text:
    """A padded batch of trajectories and what the base model made of it."""

    trajectories: tuple[Trajectory, ...]
    batch: PackedBatch
    weights: Tensor
    """(N,), float32: w_i / number of trajectories, for each written token."""
    advantages: Tensor
    """(N,), float32."""
    base: Tensor
    """(N,), float32: the base policy's log-probabilities."""
    inputs: tuple[Tensor, ...]
    """By layer, (rows, tokens, width): what the base model feeds it."""
    returns_tuple: bool
    """Whether layers return their hidden state in a tuple."""

    @property
    def tokens(self) -> int:
        """Tokens of the batch, padding included."""
        return self.batch.input_ids.numel()

    def loss(self, log_probs: Tensor) -> Tensor:
        """Clipped importance-ratio loss, summed over this text."""
        return (self.weights * clipped_loss(log_probs, self.base, self.advantages, EPSILON)).sum()

    def by_trajectory(self, values: Tensor) -> np.ndarray:
        """(trajectories,), float64: sums of a token's values, shape (N,)."""
        lengths = [trajectory.generated for trajectory in self.trajectories]
        owners = np.repeat(np.arange(len(lengths)), lengths)
        return np.bincount(owners, values.double().cpu().numpy(), minlength=len(lengths))


@contextmanager
def starting_at(shared: ProbeInput, text: Text, layer: int, module: Any) -> Iterator[None]:
    """While open, a pass over `text` begins with `module` in the place of `layer`."""

    def skip(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return (hidden_states,) if text.returns_tuple else hidden_states

    def begin(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001
        return module(text.inputs[layer], *args, **kwargs)

    with ExitStack() as stack:
        for index in range(layer):
            stack.enter_context(replaced_forward(shared.model.layers[index], skip))
        stack.enter_context(replaced_forward(shared.model.layers[layer], begin))
        yield


def read_text(shared: ProbeInput, text: Text) -> Tensor:
    """(N,), float32: log-probabilities of the written tokens."""
    temperature = shared.rollouts.origin.temperature
    return packed_log_probs(shared.model.model, text.batch, temperature)


def texts(shared: ProbeInput, groups: Sequence[int], *, keep: bool) -> Iterator[Text]:
    """The rollouts of some groups, packed; `keep` holds every layer's input.

    Without `keep`, a text has no inputs until `with_inputs` gives them to it.
    """
    rows = _rows(shared, groups)
    total = sum(len(row) for row in rows)
    for chunk in _chunks(rows, _chunk_tokens(shared)):
        text = _text(shared, chunk, total)
        yield with_inputs(shared, text) if keep else text


@torch.no_grad()
def with_inputs(shared: ProbeInput, text: Text) -> Text:
    """The same text with every layer's input and the base policy's log-probabilities."""
    inputs: list[Tensor] = []
    tuples: list[bool] = []

    def keep(_: int, given: Tensor, made: Tensor) -> None:
        inputs.append(given.detach())
        del made

    def look(_: Any, __: Any, output: Any) -> None:
        tuples.append(not isinstance(output, Tensor))

    handle = shared.model.layers[0].register_forward_hook(look)
    try:
        with observing(shared.model.layers, keep):
            base = read_text(shared, text)
    finally:
        handle.remove()
    return Text(
        text.trajectories,
        text.batch,
        text.weights,
        text.advantages,
        base,
        tuple(inputs),
        tuples[0],
    )


def _text(shared: ProbeInput, rows: Sequence[Sequence[Trajectory]], total: int) -> Text:
    model = shared.model
    batch = pack(rows, model.tokenizer.pad_token_id, model.device, model.dtype)
    chosen = tuple(trajectory for row in rows for trajectory in row)
    longest = shared.rollouts.max_trajectory_tokens
    advantages, weights = [], []
    for trajectory in chosen:
        group = shared.rollouts.groups[trajectory.group]
        turns = shared.algorithm.advantages(group)[group.index(trajectory)]
        lengths = [turn.end - turn.start for turn in trajectory.turns]
        advantages.append(np.repeat(turns, lengths))
        weight = shared.algorithm.token_weight(trajectory.generated, longest) / total
        weights.append(np.full(trajectory.generated, weight))
    nothing = torch.zeros(0)
    return Text(
        chosen,
        batch,
        _floats(weights, model.device),
        _floats(advantages, model.device),
        nothing,
        (),
        False,
    )


def _floats(parts: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(device)


def _rows(shared: ProbeInput, groups: Sequence[int]) -> list[list[Trajectory]]:
    """Samples of a prompt side by side, as many to a row as costs least."""
    sharing = RowSharing(shared.model)
    rows = []
    for index in groups:
        group = [trajectory for trajectory in shared.rollouts.groups[index] if trajectory.generated]
        if group:
            size = sharing.samples_per_row(group)
            rows += [group[start : start + size] for start in range(0, len(group), size)]
    return rows


def _chunk_tokens(shared: ProbeInput) -> int:
    """Tokens of a batch whose backward pass, logits counted thrice, holds about CHUNK_BYTES."""
    config = shared.model.model.config.get_text_config(decoder=True)
    hidden = HELD_PER_LAYER * shared.layer_count * config.hidden_size * shared.model.dtype.itemsize
    logits = 3 * config.vocab_size * torch.float32.itemsize
    return int(np.clip(CHUNK_BYTES / (hidden + logits), FEWEST_TOKENS, CHUNK_TOKENS))


def _chunks(rows: Sequence[list[Trajectory]], most: int) -> Iterator[list[list[Trajectory]]]:
    """Consecutive rows that fill a padded batch of at most `most` tokens, or single prompts.

    The samples of a prompt stay together: they are judged together.
    """
    chunk: list[list[Trajectory]] = []
    longest = 0
    for _, own in groupby(rows, key=lambda row: row[0].group):
        prompt = list(own)
        length = max(columns(row) for row in prompt)
        longest = max(longest, length)
        if chunk and longest * (len(chunk) + len(prompt)) > most:
            yield chunk
            chunk, longest = [], length
        chunk += prompt
    if chunk:
        yield chunk
