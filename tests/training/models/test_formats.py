"""Which number format `auto` stands for."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from layerpick.training.models import formats
from layerpick.training.models.formats import number_format

CPU, WIDE = torch.device("cpu"), LlamaConfig(hidden_size=576)


@pytest.fixture(params=[0.1, 0.6, 1.5], autouse=True)
def seconds(request, monkeypatch):
    """What a product in bfloat16 takes; in float32 it takes 1."""
    formats.cpu_multiplies_bfloat16.cache_clear()
    timed = {torch.float32: 1.0, torch.bfloat16: request.param}
    monkeypatch.setattr(formats, "_seconds", timed.get)
    yield request.param
    formats.cpu_multiplies_bfloat16.cache_clear()


def capabilities(monkeypatch, known):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)


def test_auto_is_what_pays(monkeypatch, seconds):
    fast = torch.bfloat16 if seconds == 0.1 else torch.float32
    capabilities(monkeypatch, {"amx_bf16": True, "avx512_bf16": True})
    assert number_format("auto", CPU, WIDE) == fast
    assert number_format("auto", CPU, LlamaConfig(hidden_size=128)) == torch.float32
    assert number_format("auto", torch.device("cuda"), WIDE) == torch.bfloat16
    assert number_format("auto", torch.device("mps"), WIDE) == torch.float32
    assert number_format("float32", torch.device("cuda"), WIDE) == torch.float32


def test_a_cpu_that_cannot_is_not_timed(monkeypatch):
    capabilities(monkeypatch, {"amx_bf16": False, "avx512_bf16": False, "avx2": True})
    monkeypatch.setattr(formats, "_seconds", None)
    assert number_format("auto", CPU, WIDE) == torch.float32


def test_where_pytorch_cannot_tell_a_product_is_timed(monkeypatch, seconds):
    capabilities(monkeypatch, {})
    fast = torch.bfloat16 if seconds == 0.1 else torch.float32
    assert number_format("auto", CPU, WIDE) == fast
