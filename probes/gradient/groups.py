"""One group as the gradient probe reads it: once, or in parts where it has many tokens.

In parts memory is bounded by what is read at a time; the price is that every backward pass over
the group reads it anew. A single trajectory is never split.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from layerpick.probes.base import ProbeInput
from layerpick.probes.reading.token_losses import (
    TokenLosses,
    entropy,
    high_entropy,
    parts_of,
    token_classes,
    token_losses,
)


class GroupReadings:
    """The readings of one group, with their graphs, as often as they are asked for."""

    def __init__(self, probe_input: ProbeInput, group: int):
        self._probe_input, self._number = probe_input, group
        self._group = probe_input.rollouts.groups[group]
        self._parts = parts_of(probe_input, group)
        self._whole: TokenLosses | None = None
        self.tokens = 0
        """Read so far, without padding."""

    @property
    def in_parts(self) -> bool:
        """Whether there are several."""
        return len(self._parts) > 1

    def __iter__(self) -> Iterator[TokenLosses]:
        """One after another; where there is only one, always the same."""
        if self._whole is not None:
            yield self._whole
            return
        for part in self._parts:
            self.tokens += sum(len(trajectory.tokens) for trajectory in self._group[part])
            reading = token_losses(self._probe_input, self._number, part)
            self._whole = None if self.in_parts else reading
            yield reading

    def classes(self) -> list[Tensor]:
        """Of each reading's tokens, (rows, C), int64: see `token_classes`."""
        temperature = self._probe_input.rollouts.origin.temperature
        entropies, written = [], []
        with torch.set_grad_enabled(not self.in_parts):  # parts are read again for their graphs
            for reading in self:
                entropies.append(entropy(reading.logits, temperature))
                written.append(reading.batch.written)
        every = torch.cat([e[w] for e, w in zip(entropies, written, strict=True)])
        owners = [self._group[part] for part in self._parts]
        parts = zip(owners, written, entropies, strict=True)
        return [token_classes(*part, high_entropy(every)) for part in parts]
