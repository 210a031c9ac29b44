"""Which samples share a row and how many rows a chunk: one rule for the update and for the probes.

Samples of one prompt stand side by side in a row where the model allows it, as many as cost least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerpick.training.batches.packed import packs
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.models.loading import LoadedModel

CHUNK_BYTES = {True: 8e9, False: 1e9}
"""What the backward pass of a chunk holds of hidden states, roughly, on CUDA and elsewhere."""
HELD_PER_LAYER = 16
"""Hidden states that a decoder layer holds for its backward pass, roughly."""
FEWEST_TOKENS = 512
"""Tokens that a chunk may have however large the model."""
MOST_LOGITS = {True: 1 << 29, False: 1 << 27}
"""Logits of a chunk, on CUDA and elsewhere; they and their gradient are held."""
SHARED, WINDOWED = "shared", "windowed"
CLASH = frozenset({SHARED, WINDOWED})
"""Rows of several samples, and rows beyond a window of attention: no batch has both."""
WINDOWS = ("sliding_window", "attention_chunk_size")
"""What configs call the number of columns that some layers can look back."""


@dataclass(frozen=True)
class ChunkLimits:
    """How much is read at a time, so that memory is bounded."""

    tokens: int
    """Padding included."""
    predicted: int
    """Tokens with logits."""


def chunk_limits(model: LoadedModel, most_tokens: int) -> ChunkLimits:
    """The limits for one model; `most_tokens` is the user's own."""
    config, cuda = model.model.config.get_text_config(decoder=True), model.device.type == "cuda"
    held = HELD_PER_LAYER * len(model.layers) * config.hidden_size * model.dtype.itemsize
    return ChunkLimits(
        min(most_tokens, max(FEWEST_TOKENS, int(CHUNK_BYTES[cuda] / held))),
        MOST_LOGITS[cuda] // config.vocab_size,
    )


class RowSharing:
    """How many samples of a prompt share a row of one model's batches."""

    def __init__(self, model: LoadedModel, limits: ChunkLimits):
        """Tries the model out; see `packs`. A row keeps to the limits, or has one sample."""
        self._limits = limits
        config = model.model.config.get_text_config(decoder=True)
        self._packs = packs(model.model, model.tokenizer.pad_token_id, model.device, model.dtype)
        self._windows = [size for name in WINDOWS if (size := getattr(config, name, None))]
        self._width = config.hidden_size

    def samples_per_row(self, samples: Sequence[Trajectory]) -> int:
        """For samples that answer one prompt; 1 where they must not share."""
        prompt = samples[0].prompt_length
        longest = max(len(sample.tokens) for sample in samples)
        start = samples[0].tokens[:prompt]
        same = all(sample.tokens[:prompt] == start for sample in samples)
        if not self._packs or not same or self.windowed(samples):
            return 1
        completion = max(1, longest - prompt)
        most = min(
            (self._limits.tokens - prompt) // completion, self._limits.predicted // completion
        )
        return cheapest_sharing(prompt, completion, len(samples), self._width, most)

    def mix(
        self, rows: Sequence[Sequence[Trajectory]], masks: frozenset[str] = frozenset()
    ) -> frozenset[str]:
        """What these rows ask of a batch's mask, beside what others do: `CLASH` cannot be had."""
        shared = {SHARED} if any(len(row) > 1 for row in rows) else set()
        windowed = {WINDOWED} if any(self.windowed(row) for row in rows) else set()
        return masks | shared | windowed

    def windowed(self, samples: Sequence[Trajectory]) -> bool:
        """Whether a layer's window of attention ends within one of them.

        A window counts columns, which are not positions in a packed row; and a batch in which any
        row is shared has one mask for all layers. So they neither share a row nor such a batch.
        """
        longest = max(len(sample.tokens) for sample in samples)
        return any(longest >= window for window in self._windows)


def columns(samples: Sequence[Trajectory]) -> int:
    """Columns that a row of these samples of one prompt takes, at most."""
    prompt = samples[0].prompt_length
    return prompt + sum(len(sample.tokens) - prompt for sample in samples)


def cheapest_sharing(prompt: int, completion: int, group_size: int, width: int, most: int) -> int:
    """How many samples share a row at the least cost, by multiply-adds per layer; at most so many.

    prompt, completion: typical lengths in tokens; width: the model's hidden size. A token costs
    about 12 width² in weights and 2 width in attention to each column of its row.
    """

    def cost(samples: int) -> float:
        columns = prompt + samples * completion
        return -(-group_size // samples) * columns * (12 * width**2 + 2 * width * columns)

    return min(range(1, max(1, min(group_size, most)) + 1), key=cost)
