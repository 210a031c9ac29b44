"""Lock-step decoding with a KV cache that is kept across turns.

Padding is masked and takes no position. Any Hugging Face causal model works unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerpick.training.models.head import blocks, logits_at


class Decoder:
    """A batch of token sequences that grow together.

    Past the first call, shorter chunks are padded on the right and the cache is aligned again
    before a row goes on, so that a row's tokens always stand side by side: sliding-window
    attention counts slots, and a hole inside the window would push real tokens out of it.
    """

    def __init__(self, model: Any, pad_token: int, rows: int):
        from layerpick.training.episodes.cache import growing_cache

        self._model = model
        self._pad = pad_token
        self._device = model.get_input_embeddings().weight.device
        self._cache = growing_cache()
        self._mask = torch.zeros(rows, 0, dtype=torch.long, device=self._device)
        # What the mask holds is known here too, so that no token waits for the device to say it.
        self._tokens = np.zeros(rows, dtype=np.int64)
        self._open = np.zeros(rows, dtype=bool)

    @torch.no_grad()
    def extend(self, chunks: Sequence[Sequence[int]]) -> Tensor:
        """Append tokens to every row; returns the next-token logits, shape (rows, vocabulary).

        An empty chunk leaves its row as it was; that row's logits are then meaningless.
        """
        lengths = np.array([len(chunk) for chunk in chunks])
        width = max(1, int(lengths.max()))
        first = self._mask.shape[1] == 0
        if self._open[lengths > 0].any():
            self._align()
        tokens = np.full((len(chunks), width), self._pad)
        mask = np.zeros((len(chunks), width), dtype=np.int64)
        for row, chunk in enumerate(chunks):
            span = slice(width - len(chunk), width) if first else slice(0, len(chunk))
            tokens[row, span] = chunk
            mask[row, span] = 1
        positions = np.maximum(self._tokens[:, None] + mask.cumsum(axis=1) - 1, 0)
        last = np.full(len(chunks), width - 1) if first else np.maximum(lengths - 1, 0)
        places = np.arange(len(chunks)) * width + last
        self._tokens += lengths
        self._open = mask[:, -1] == 0
        return self._forward(
            *(torch.from_numpy(part).to(self._device) for part in (tokens, mask, positions, places))
        )

    def keep(self, rows: Sequence[int]) -> None:
        """Hold these rows from now on, in this order; a row may be named several times."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self._device)
        self._cache.batch_select_indices(index)
        self._mask = self._mask[index]
        self._tokens, self._open = self._tokens[rows], self._open[rows]

    def _align(self) -> None:
        """Move every row's tokens to the right end."""
        order = torch.argsort(self._mask, dim=1, stable=True)[:, -self._tokens.max() :]
        self._mask = self._mask.gather(1, order)
        self._open[:] = False
        self._rearrange(order)

    def _rearrange(self, order: Tensor) -> None:
        """Bring the slots of every row's cache into this order, shape (rows, slots)."""
        for layer in self._cache.layers:
            layer.take_slots(order)

    def _forward(self, tokens: Tensor, mask: Tensor, positions: Tensor, places: Tensor) -> Tensor:
        """Feed one block (rows, width); logits at `places` (rows,), counted through the block."""
        self._mask = torch.cat([self._mask, mask], dim=1)
        return logits_at(
            self._model,
            places,
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )


def draw_tokens(
    logits: Tensor, temperature: float, uniforms: Tensor, rows: Tensor | None = None
) -> Tensor:
    """Sample one token per draw by inverting the cumulative distribution: (draws,), int64.

    logits (rows, vocabulary); uniforms (draws,) in (0, 1); rows (draws,), int64, in order: of
    which row each draw is, by default one of each. Equal logits and uniforms give equal tokens,
    whatever else is in the batch. Temperature 0 takes the most likely token.
    """
    if temperature == 0:
        best = logits.argmax(dim=-1)
        return best if rows is None else best[rows.to(logits.device)]
    spread, place = uniforms.float().unsqueeze(1), None
    if rows is not None:
        counts = rows.bincount(minlength=len(logits))
        number = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        spread, place = torch.full((len(logits), int(counts.max())), 0.5), (rows, number)
        spread[place] = uniforms.float()
    spread = spread.to(logits.device)
    drawn = torch.empty(spread.shape, dtype=torch.long, device=logits.device)
    for block in blocks(logits):
        scaled = logits[block].float()
        scaled = scaled if temperature == 1 else scaled / temperature
        cumulative = torch.softmax(scaled, dim=-1).cumsum(dim=-1)
        threshold = spread[block] * cumulative[:, -1:]
        drawn[block] = torch.searchsorted(cumulative, threshold)
    drawn = drawn.clamp_(max=logits.shape[-1] - 1)
    return drawn.squeeze(1) if place is None else drawn.cpu()[place]


def write_turns(
    decoder: Decoder,
    logits: Tensor,
    uniforms: np.ndarray,
    temperature: float,
    ends: Callable[[list[int]], bool],
    copies: Tensor | None,
    *,
    drop_finished: bool,
    on_tokens: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """Let every row write until `ends` says that its tokens are complete, or the noise runs out.

    uniforms (rows, longest turn): one number in (0, 1) for each token that could be drawn;
    copies (rows,), int64, in order: of which of the logits each row draws its first token.
    Rows that have ended wait, fed nothing, or leave the batch with `drop_finished` (the decoder
    is then of no further use). `on_tokens` is told how many rows are about to write one. The last
    token of a turn is not fed to the decoder: it goes in with whatever follows.
    """
    rows, limit = uniforms.shape
    written: list[list[int]] = [[] for _ in range(rows)]
    held = list(range(rows))
    writing = set(held)
    for step in range(limit):
        on_tokens(len(writing))
        draws = torch.from_numpy(uniforms[held, step])
        drawn = draw_tokens(logits, temperature, draws, copies)
        for row, token in zip(held, drawn.tolist(), strict=True):
            if row in writing:
                written[row].append(token)
                if ends(written[row]):
                    writing.discard(row)
        if not writing or step == limit - 1:
            break
        # Dropping copies the cache, so it must be worth it.
        if drop_finished and len(writing) <= 0.75 * len(held):
            decoder.keep([index for index, row in enumerate(held) if row in writing])
            held = [row for row in held if row in writing]
        copies = None
        logits = decoder.extend([written[row][-1:] if row in writing else [] for row in held])
    return written
