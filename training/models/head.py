"""Logits at chosen positions alone, and log-probabilities without a float32 copy of them.

A vocabulary is up to four hundred times as wide as a model, so nothing multiplies by it but the
positions that are asked for. They are picked where the output embedding reads the hidden states,
so whatever a family does there (tied weights, scaling, soft-capping) applies unchanged.

    logits = logits_at(model, places, input_ids=…, attention_mask=…)      # (N, vocabulary)
    log_probs = log_probs_of(logits, tokens, temperature)                 # (N,), float32
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 1 << 20
"""Logits that are float32 at a time."""


def logits_at(model: Any, places: Tensor, **inputs: Any) -> Tensor:
    """One forward pass; logits at some positions only, shape (N, vocabulary), in the graph.

    places (N,), int64: row × columns + column, where the inputs have shape (rows, columns).
    `model` is a causal language model of any family, or what stands for one.
    """
    picked = False

    def pick(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        nonlocal picked
        picked = True
        # One row of N positions, side by side in memory: one product with the vocabulary.
        return (given[0].flatten(0, 1).index_select(0, places).unsqueeze(0),)

    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(pick) if head is not None else None
    try:
        logits = model(**inputs).logits
    finally:
        if hook is not None:
            hook.remove()
    # A family may multiply by the head's weights without calling it.
    return logits.squeeze(0) if picked else logits.flatten(0, 1).index_select(0, places)


def log_probs_of(
    logits: Tensor, targets: Tensor, temperature: float, rows: Tensor | None = None
) -> Tensor:
    """log softmax(logits / T) at the targets, float32; the gradient has the logits' own format.

    logits (…, V) and targets (…) give (…); or logits (M, V), and of each of the targets (N,) its
    row of them (N,), which several may share.
    """
    if rows is None:
        flat = logits.reshape(-1, logits.shape[-1])
        rows = torch.arange(len(flat), device=flat.device)
        return log_probs_of(flat, targets.reshape(-1), temperature, rows).reshape(targets.shape)
    return _LogProbs.apply(logits, rows, targets, temperature or 1.0)  # type: ignore[no-untyped-call]


class _LogProbs(torch.autograd.Function):
    """logits (M, V), rows and targets (N,): float32 in blocks, so that no copy of all is made."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, rows: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        totals = logits.new_empty(len(logits), dtype=torch.float32)
        for block in blocks(logits):
            totals[block] = _scaled(logits[block], temperature).logsumexp(dim=-1)
        ctx.save_for_backward(logits, rows, targets, totals)
        ctx.temperature = temperature
        return _scaled(logits[rows, targets], temperature) - totals[rows]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        logits, rows, targets, totals = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            log_probs = torch.log_softmax(_scaled(logits, ctx.temperature), dim=-1)
            chosen = log_probs[rows, targets]
            given = torch.autograd.grad(chosen, logits, gradient, create_graph=True)
            return (*given, None, None, None)
        order = rows.argsort()
        rows, targets = rows[order], targets[order]
        gradient = gradient[order] / ctx.temperature
        sums = torch.zeros_like(totals).index_add_(0, rows, gradient)
        result = torch.empty_like(logits)
        for block in blocks(logits):
            exponents = _scaled(logits[block], ctx.temperature) - totals[block, None]
            part = exponents.exp_().mul_(-sums[block, None])
            first, end = torch.searchsorted(
                rows, rows.new_tensor([block.start, block.stop])
            ).tolist()
            own = (rows[first:end] - block.start, targets[first:end])
            result[block] = part.index_put_(own, gradient[first:end], accumulate=True)
        return result, None, None, None


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """logits / T, float32."""
    return logits.float() if temperature == 1 else logits.float() / temperature


def blocks(logits: Tensor) -> list[slice]:
    """Rows of (M, V) in blocks of about BLOCK numbers, for work in float32."""
    size = max(1, BLOCK // logits.shape[1])
    return [slice(start, start + size) for start in range(0, len(logits), size)]
