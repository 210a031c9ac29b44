"""Log-probabilities of a policy as changes of the base policy's, without logits of the vocabulary.

With p₀ the base policy's distribution at a position and δ what the policy adds to its logits,

    log π(a) = log p₀(a) + δ(a) − log Σ_v p₀(v) exp δ(v),

which loses nothing where δ is small. The vocabulary is gone through in blocks that stay in the
processor's cache; the gradient with respect to the hidden state, W_a − Σ_v π(v) W_v, is summed up
on the way, so that nothing as wide as the vocabulary is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK = {True: 1 << 26, False: 1 << 19}
"""Logits at a time, on CUDA and elsewhere."""


@dataclass(frozen=True)
class Written:
    """Which tokens were written, and where each is predicted."""

    targets: Tensor
    """(N,), int64."""
    place: Tensor
    """(N,), int64: which of the M positions predicts each."""
    temperature: float


@dataclass(frozen=True)
class BaseHead:
    """What the base policy predicts at M positions; L is the model's own number format."""

    hidden: Tensor
    """(M, width), L."""
    shares: tuple[Tensor, ...]
    """Blocks of p₀ over the vocabulary, each (M, part of the vocabulary), L."""
    chosen: Tensor
    """(N,), float32: log p₀ of the written tokens."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is held."""
        return (self.hidden, *self.shares, self.chosen)


@torch.no_grad()
def remember_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, what: Written) -> BaseHead:
    """hidden (M, width), float32; weight (V, width), L; bias (V,) or None."""
    rounded = hidden.to(weight.dtype)
    blocks, totals = [], []
    for part in _blocks(weight, len(hidden)):
        logits = torch.nn.functional.linear(rounded, weight[part]).float()
        logits = (logits if bias is None else logits + bias[part]) / what.temperature
        totals.append(logits.logsumexp(dim=1))
        blocks.append(logits.to(weight.dtype))
    total = torch.stack(totals).logsumexp(dim=0)
    chosen = (rounded[what.place].float() * weight[what.targets].float()).sum(dim=1)
    chosen = (chosen if bias is None else chosen + bias[what.targets]) / what.temperature
    shares = tuple((block.float() - total[:, None]).exp().to(weight.dtype) for block in blocks)
    return BaseHead(rounded, shares, chosen - total[what.place])


def log_probs_from(hidden: Tensor, base: BaseHead, weight: Tensor, what: Written) -> Tensor:
    """(N,), float32: log-probabilities of the written tokens at hidden (M, width), float32."""
    return _LogProbs.apply(hidden, base, weight, what)  # type: ignore[no-untyped-call]


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, base: BaseHead, weight: Tensor, what: Written) -> Tensor:
        moved = (hidden - base.hidden.float()).to(weight.dtype)
        mean = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        total = torch.zeros(len(hidden), device=hidden.device)
        for part, share in zip(_blocks(weight, len(hidden)), base.shares, strict=True):
            added = torch.nn.functional.linear(moved, weight[part]).float()
            if what.temperature != 1:
                added.div_(what.temperature)
            share = added.exp_().mul_(share.float())
            total += share.sum(dim=1)
            if mean is not None:
                mean += (share.to(weight.dtype) @ weight[part]).float()
        chosen = weight[what.targets].float()
        moved_chosen = (moved[what.place].float() * chosen).sum(dim=1) / what.temperature
        if mean is not None:
            ctx.save_for_backward(chosen, mean.div_(total[:, None]))
            ctx.what = what
        return base.chosen + moved_chosen - total.log()[what.place]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        chosen, mean = ctx.saved_tensors
        gradient, place = gradient / ctx.what.temperature, ctx.what.place
        sums = torch.zeros(len(mean), device=mean.device).index_add_(0, place, gradient)
        result = -sums[:, None] * mean
        return result.index_add_(0, place, gradient[:, None] * chosen), None, None, None


def _blocks(weight: Tensor, positions: int) -> Iterator[slice]:
    size = max(256, BLOCK[weight.is_cuda] // positions)
    return (slice(start, start + size) for start in range(0, len(weight), size))


def is_whole(logits: Tensor, made: Sequence[Tensor]) -> bool:
    """Whether a model hands out what its head has made, neither scaled nor capped."""
    return len(made) == 1 and torch.equal(logits, made[0])
