"""A key-value cache with room to grow: a new token is written, what went before stays in place.

The library's dynamic cache copies all that it holds for each token that is added.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

LEAST_ROOM = 8
"""Slots that are taken beyond those in use, or a quarter of those if that is more."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, each (rows, heads, slots, width): views of larger tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append slots; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        slots = self.get_seq_length()
        end = slots + key_states.shape[2]
        if not self._held or self._held[0].shape[2] < end:
            room = end + max(LEAST_ROOM, end // 4)
            pairs = ((self.keys, key_states), (self.values, value_states))
            self._held = [_larger(before, added, room) for before, added in pairs]
        for held, added in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, slots:end] = added
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Take rows `indices`, int64; a row may be named several times."""
        slots = self.get_seq_length()
        self._held = [held.index_select(0, indices) for held in self._held]
        self._show(slots)

    def take_slots(self, order: Tensor) -> None:
        """Take slots `order` (rows, slots), int64."""
        index = order[:, None, :, None]
        self._held = [
            held.gather(2, index.expand(-1, held.shape[1], -1, held.shape[3]))
            for held in self._held
        ]
        self._show(order.shape[1])

    def _show(self, slots: int) -> None:
        self.keys, self.values = (held[:, :, :slots] for held in self._held)


def growing_cache() -> Cache:
    """An empty cache for any causal language model."""
    return Cache(layer_class_to_replicate=GrowingLayer)


def _larger(before: Tensor, added: Tensor, room: int) -> Tensor:
    """(rows, heads, room, width), of which the first slots are those that there were."""
    larger = added.new_empty(*added.shape[:2], room, added.shape[3])
    if before.numel():
        larger[:, :, : before.shape[2]] = before
    return larger
