"""Attention whose backward pass is fast on a CPU in bfloat16.

PyTorch's fused kernel reads packed rows fast, but its backward pass takes four times what plain
products take there (23 rows of 49 tokens, 9 heads: 42 ms against 10). Within `fast_backward` the
kernel still makes the output, so nothing changes in the values; gradients come from the plain
formula, softmax(Q Kᵀ s + M) V, computed anew.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as fused
from torch.overrides import TorchFunctionMode

from layerpick.training.models.loading import LoadedModel

LONGEST = 192
"""Columns up to which plain products are faster; their scores are held whole."""


def fast_backward(model: LoadedModel) -> AbstractContextManager[Any]:
    """While open, attention of short rows has the plain backward pass, where that pays."""
    pays = model.device.type == "cpu" and model.dtype == torch.bfloat16
    return _PlainBackward() if pays else nullcontext()


class _PlainBackward(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is fused and torch.is_grad_enabled():
            found = _attended(*args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)


def _attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """The output, or None where the kernel's own backward pass is to be used."""
    learns = query.requires_grad or key.requires_grad or value.requires_grad
    if not learns or dropout_p or query.ndim != 4 or key.shape[2] > LONGEST:
        return None
    if attn_mask is not None and attn_mask.requires_grad:
        return None
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    if is_causal:
        shape = (query.shape[2], key.shape[2])
        attn_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return _Attention.apply(query, key, value, attn_mask, scale)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        return fused(query, key, value, attn_mask=mask, scale=scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        scores = (query @ key.transpose(2, 3)).float() * ctx.scale
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores = scores + mask
        weights = torch.softmax(scores, dim=-1)
        by_weight = (gradient @ value.transpose(2, 3)).float()
        # Of softmax: w (g − Σ w g).
        inner = (weights * by_weight).sum(dim=-1, keepdim=True)
        by_score = (weights * (by_weight - inner) * ctx.scale).to(query.dtype)
        return (
            by_score @ key,
            by_score.transpose(2, 3) @ query,
            weights.to(query.dtype).transpose(2, 3) @ gradient,
            None,
            None,
        )
