"""Logits at chosen positions, and log-probabilities, against the plain way to both."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from layerpick.training.models import head
from layerpick.training.models.head import log_probs_of, logits_at

SCALED = {
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.25, "num_key_value_heads": 2},
    "gpt_neox": {},
    "phi": {},  # its head has a bias
}


def scaled_model(family):
    """A tiny random model of a family that does something of its own to its logits."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = AutoConfig.for_model(
        family, vocab_size=97, intermediate_size=48, pad_token_id=0, eos_token_id=1,
        bos_token_id=1, **sizes, **SCALED[family],
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def check(model):
    """Values and gradients at places out of order, one of them twice."""
    tokens = torch.randint(0, 97, (3, 7), generator=torch.Generator().manual_seed(1))
    places = torch.tensor([20, 3, 3, 8])
    model = copy.deepcopy(model).requires_grad_(True)
    seen = []
    embeddings = model.get_output_embeddings()
    embeddings.register_forward_hook(lambda _, __, made: seen.append(made.shape))
    expected = model(input_ids=tokens, use_cache=False).logits.flatten(0, 1)[places]
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    wanted = torch.autograd.grad((weights * expected).sum(), embeddings.weight)[0]
    found = logits_at(model, places, input_ids=tokens, use_cache=False)
    assert torch.allclose(
        found, expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max())
    )
    gradient = torch.autograd.grad((weights * found).sum(), embeddings.weight)[0]
    assert torch.allclose(gradient, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    assert seen[-1][:-1].numel() == 4, "the head has read other positions too"
    model(input_ids=tokens, use_cache=False)
    assert seen[-1][:-1].numel() == 21, "the model is not left as it was"


def test_every_family(tiny, family):
    check(tiny(family).model)


@pytest.mark.parametrize("name", sorted(SCALED))
def test_families_that_change_their_logits(name):
    check(scaled_model(name))


def test_a_head_that_is_not_called(tiny, monkeypatch):
    """Where the hidden states do not pass through it, logits are picked from all of them."""
    model = tiny("llama").model
    tokens = torch.arange(8).reshape(2, 4)
    expected = model(input_ids=tokens).logits.flatten(0, 1)[[5, 0]]
    for answer in (None, torch.nn.Linear(32, 258)):
        monkeypatch.setattr(model, "get_output_embeddings", lambda answer=answer: answer)
        assert torch.equal(logits_at(model, torch.tensor([5, 0]), input_ids=tokens), expected)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_their_derivatives(monkeypatch, temperature):
    """In several blocks, with rows that predict several tokens and one that predicts none."""
    monkeypatch.setattr(head, "BLOCK", 40)
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(7, 19, generator=generator)).requires_grad_(True)
    rows = torch.tensor([6, 0, 2, 2, 5, 1, 2, 4])
    targets = torch.randint(0, 19, rows.shape, generator=generator)
    given = torch.randn(rows.shape, generator=generator)

    def plainly(values):
        return torch.log_softmax(values / temperature, dim=-1)[rows, targets]

    def ours(values):
        return log_probs_of(values, targets, temperature, rows)

    assert torch.allclose(ours(logits), plainly(logits), atol=1e-5)
    (found,) = torch.autograd.grad(ours(logits), logits, given)
    (expected,) = torch.autograd.grad(plainly(logits), logits, given)
    assert torch.allclose(found, expected, atol=1e-6)
    direction = torch.randn(logits.shape, generator=generator)

    def second(log_probs):
        (slope,) = torch.autograd.grad(log_probs(logits).exp(), logits, given, create_graph=True)
        return torch.autograd.grad((slope * direction).sum(), logits)[0]

    assert torch.allclose(second(ours), second(plainly), atol=1e-5)


def test_log_probs_of_bfloat16_logits_are_rounded_nowhere_else():
    generator = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(5, 300, generator=generator)).bfloat16().requires_grad_(True)
    targets = logits.argmax(dim=-1)
    found = log_probs_of(logits, targets, 0.8)
    expected = torch.log_softmax(logits.double() / 0.8, dim=-1).gather(1, targets[:, None])[:, 0]
    assert found.dtype == torch.float32 and torch.allclose(found.double(), expected, atol=1e-5)
    found.sum().backward()
    gradient = torch.autograd.grad(expected.sum(), logits)[0]
    # A likely token's gradient, 1 − p, is small: it must be formed before it is rounded.
    assert torch.allclose(logits.grad.float(), gradient.float(), rtol=2**-7, atol=1e-6)
