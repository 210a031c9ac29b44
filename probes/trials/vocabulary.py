"""Log-probabilities of a policy as changes of the base policy's, without logits of the vocabulary.

With p₀ the base policy's distribution at a position and δ what the policy adds to its logits,

    log π(a) = log p₀(a) + δ(a) − log Σ_v p₀(v) exp δ(v),

which loses nothing where δ is small. The sum is taken word by word over those that are likely at
some position of the text; all others together count as one word with their mean embedding, since
with R their share and E the mean over them

    Σ p₀(v) exp δ(v) = R exp(E δ) (1 + var δ / 2 + …),

a matter of hundreds of words in place of hundreds of thousands. Words are gone through in blocks
that stay in the processor's cache; the gradient with respect to the hidden state,
W_a − Σ_v π(v) W_v, is summed up on the way, so that nothing as wide as the vocabulary is kept.

Limits: where a policy moves unlikely words far apart (by more than about 1) that held much of p₀
together (some hundredths where a model is undecided), log π errs by their share × var δ / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK = {True: 1 << 26, False: 1 << 19}
"""Logits at a time, on CUDA and elsewhere."""
LIKELY = 1e-4
"""Words that p₀ gives at least this much at some position are counted one by one."""


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
    words: Tensor
    """(K,), int64: those that are likely at some position."""
    shares: Tensor
    """(M, K), L: their p₀."""
    rest: Tensor
    """(M,), float32: p₀ of all other words together."""
    centre: Tensor
    """(M, width), float32: their mean row of the head's weight, weighted by p₀."""
    chosen: Tensor
    """(N,), float32: log p₀ of the written tokens."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is held, in the order in which a head is made of it."""
        return (self.hidden, self.words, self.shares, self.rest, self.centre, self.chosen)


@torch.no_grad()
def remember_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, what: Written) -> BaseHead:
    """hidden (M, width), float32; weight (V, width), L; bias (V,) or None."""
    rounded = hidden.to(weight.dtype)
    parts = _blocks(len(weight), hidden)
    blocks, totals = [], []
    for part in parts:
        logits = torch.nn.functional.linear(rounded, weight[part]).float()
        logits = (logits if bias is None else logits + bias[part]) / what.temperature
        totals.append(logits.logsumexp(dim=1))
        blocks.append(logits.to(weight.dtype))
    total = torch.stack(totals).logsumexp(dim=0)
    chosen = (rounded[what.place].float() * weight[what.targets].float()).sum(dim=1)
    chosen = (chosen if bias is None else chosen + bias[what.targets]) / what.temperature
    words, shares = [], []
    rest, centre = torch.zeros_like(total), torch.zeros_like(hidden)
    for part, block in zip(parts, blocks, strict=True):
        share = (block.float() - total[:, None]).exp()
        likely = share.amax(dim=0) >= LIKELY
        words.append(likely.nonzero().squeeze(1) + part.start)
        shares.append(share[:, likely].to(weight.dtype))
        share[:, likely] = 0
        rest += share.sum(dim=1)
        centre += (share.to(weight.dtype) @ weight[part]).float()
    centre /= rest[:, None].clamp_min(torch.finfo(rest.dtype).tiny)
    likely_ones, their_shares = torch.cat(words), torch.cat(shares, dim=1)
    return BaseHead(rounded, likely_ones, their_shares, rest, centre, chosen - total[what.place])


def log_probs_from(hidden: Tensor, base: BaseHead, weight: Tensor, what: Written) -> Tensor:
    """(N,), float32: log-probabilities of the written tokens at hidden (M, width), float32."""
    return _LogProbs.apply(hidden, base, weight, what)  # type: ignore[no-untyped-call]


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, base: BaseHead, weight: Tensor, what: Written) -> Tensor:
        difference = hidden - base.hidden.float()
        moved = difference.to(weight.dtype)
        share = base.rest * ((base.centre * difference).sum(dim=1) / what.temperature).exp()
        mean = share[:, None] * base.centre if ctx.needs_input_grad[0] else None
        total = share
        for part in _blocks(len(base.words), hidden):
            rows = weight.index_select(0, base.words[part])
            added = torch.nn.functional.linear(moved, rows).float()
            if what.temperature != 1:
                added.div_(what.temperature)
            shares = added.exp_().mul_(base.shares[:, part].float())
            total = total + shares.sum(dim=1)
            if mean is not None:
                mean += (shares.to(weight.dtype) @ rows).float()
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


def _blocks(words: int, hidden: Tensor) -> list[slice]:
    size = max(256, BLOCK[hidden.is_cuda] // len(hidden))
    return [slice(start, start + size) for start in range(0, words, size)]


def is_whole(logits: Tensor, made: Sequence[Tensor]) -> bool:
    """Whether a model hands out what its head has made, neither scaled nor capped."""
    return len(made) == 1 and torch.equal(logits, made[0])
