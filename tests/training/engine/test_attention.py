"""The plain backward pass of attention against that of PyTorch's own kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from layerpick.training.engine import attention
from layerpick.training.engine.attention import _PlainBackward, fast_backward

ROWS, COLUMNS, WIDTH = 3, 7, 8


def masks():
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(ROWS, 1, COLUMNS, COLUMNS, generator=generator) < 0.5
    seen |= torch.eye(COLUMNS, dtype=torch.bool)
    added = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
    return {"none": None, "bool": seen, "added": added}


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("mask", [*masks(), "causal"])
def test_values_are_the_kernels_and_so_are_gradients(monkeypatch, mask, heads):
    generator = torch.Generator().manual_seed(1)
    shapes = [(ROWS, count, COLUMNS, WIDTH) for count in (4, heads, heads)]
    inputs = [torch.randn(shape, generator=generator).requires_grad_(True) for shape in shapes]
    given = torch.randn(ROWS, 4, COLUMNS, WIDTH, generator=generator)
    options = {"scale": 0.2, "enable_gqa": heads < 4, "is_causal": mask == "causal"}
    options["attn_mask"] = masks().get(mask)
    expected = scaled_dot_product_attention(*inputs, **options)
    gradients = torch.autograd.grad(expected, inputs, given)
    with _PlainBackward():
        found = scaled_dot_product_attention(*inputs, **options)
    assert "Attention" in type(found.grad_fn).__name__
    assert torch.allclose(found, expected, atol=1e-6)
    for ours, theirs in zip(torch.autograd.grad(found, inputs, given), gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    monkeypatch.setattr(attention, "LONGEST", COLUMNS - 1)
    with _PlainBackward():
        longer = scaled_dot_product_attention(*inputs, **options)
    assert type(longer.grad_fn) is type(expected.grad_fn)


def test_only_where_it_pays(tiny):
    model = tiny("llama")
    query = torch.randn(1, 2, 5, 8, requires_grad=True)
    with fast_backward(model):
        output = scaled_dot_product_attention(query, query, query)
    assert "_Attention" not in type(output.grad_fn).__name__
    half = replace(model, model=model.model.bfloat16())
    with fast_backward(half), torch.no_grad():
        assert scaled_dot_product_attention(query, query, query).grad_fn is None
    with fast_backward(half):
        output = scaled_dot_product_attention(query, query, query)
    assert "_Attention" in type(output.grad_fn).__name__
