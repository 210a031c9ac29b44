"""Lock-step decoding with a KV cache that is kept across turns.

Rows of different lengths are aligned at their last token: shorter chunks are padded on the left,
padding is masked and takes no position. Any Hugging Face causal model works unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Decoder:
    """A batch of token sequences that grow together."""

    def __init__(self, model: Any, pad_token: int, rows: int):
        from transformers import DynamicCache

        self._model = model
        self._pad = pad_token
        self._device = model.get_input_embeddings().weight.device
        self._cache = DynamicCache(config=model.config)
        self._mask = torch.zeros(rows, 0, dtype=torch.long, device=self._device)

    @property
    def rows(self) -> int:
        """Number of sequences still held."""
        return self._mask.shape[0]

    @torch.no_grad()
    def extend(self, chunks: Sequence[Sequence[int]]) -> Tensor:
        """Append tokens to every row; returns the next-token logits, shape (rows, vocabulary).

        An empty chunk leaves its row as it was; that row's logits are then meaningless.
        """
        width = max(1, *(len(chunk) for chunk in chunks))
        tokens = torch.full((len(chunks), width), self._pad, dtype=torch.long)
        mask = torch.zeros(len(chunks), width, dtype=torch.long)
        for row, chunk in enumerate(chunks):
            if chunk:
                tokens[row, width - len(chunk) :] = torch.as_tensor(chunk)
                mask[row, width - len(chunk) :] = 1
        return self._forward(tokens.to(self._device), mask.to(self._device))

    def keep(self, rows: Sequence[int]) -> None:
        """Hold these rows from now on, in this order; a row may be named several times."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self._device)
        self._cache.batch_select_indices(index)
        self._mask = self._mask[index]

    def _forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        seen = self._mask.sum(dim=1, keepdim=True)
        positions = (seen + mask.cumsum(dim=1) - 1).clamp(min=0)
        self._mask = torch.cat([self._mask, mask], dim=1)
        output = self._model(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


def draw_tokens(logits: Tensor, temperature: float, uniforms: Tensor) -> Tensor:
    """Sample one token per row by inverting the cumulative distribution.

    logits (rows, vocabulary); uniforms (rows,) in (0, 1). Equal logits and uniforms give equal
    tokens, whatever else is in the batch. Temperature 0 takes the most likely token.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(dim=-1)
    threshold = uniforms.to(cumulative).unsqueeze(1) * cumulative[:, -1:]
    return (cumulative < threshold).sum(dim=-1).clamp(max=logits.shape[-1] - 1)


def write_turns(
    decoder: Decoder,
    logits: Tensor,
    uniforms: np.ndarray,
    temperature: float,
    ends: Callable[[list[int]], bool],
    *,
    drop_finished: bool,
) -> list[list[int]]:
    """Let every row write until `ends` says that its tokens are complete, or the noise runs out.

    uniforms (rows, longest turn): one number in (0, 1) for each token that could be drawn. Rows
    that have ended wait, fed nothing, or leave the batch with `drop_finished` (the decoder is
    then of no further use). The last token of a turn is not fed to the decoder: it goes in with
    whatever follows.
    """
    rows, limit = uniforms.shape
    written: list[list[int]] = [[] for _ in range(rows)]
    held = list(range(rows))
    writing = set(held)
    for step in range(limit):
        drawn = draw_tokens(logits, temperature, torch.from_numpy(uniforms[held, step]))
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
        logits = decoder.extend([written[row][-1:] if row in writing else [] for row in held])
    return written
