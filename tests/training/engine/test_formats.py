"""What is trained is held in float32, whatever the format of the model that it acts in."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from layerpick.training.engine.loop import train
from layerpick.training.engine.policies import FullPolicy, TrainedCopy
from layerpick.training.engine.stacked import SingleLayerPolicies


@pytest.fixture
def half(tiny):
    """A model in bfloat16."""
    model = tiny("qwen3")
    half = replace(model, model=copy.deepcopy(model.model).bfloat16())
    return replace(half, layers=replace(model.layers, modules=tuple(half.model.model.layers)))


def learn(bench, policies, rate):
    return train(
        policies, bench.model, bench.task, bench.algorithm, bench.sampling, bench.settings, rate,
        seed=0,
    )  # fmt: skip


def test_trained_weights_are_float32_and_learn_from_bfloat16_models(half, make_bench):
    bench = make_bench(half, steps=2)
    for policies in (SingleLayerPolicies(half, range(3)), FullPolicy(half)):
        before = [p.clone() for p in policies.parameters(0)]
        runs = learn(bench, policies, 1e-5)
        assert all(run.failure is None for run in runs)
        after = policies.parameters(0)
        assert all(p.dtype == torch.float32 for p in after)
        moved = torch.cat([(p - b).flatten() for p, b in zip(after, before, strict=True)])
        assert 0 < moved.norm() / torch.cat([b.flatten() for b in before]).norm() < 1e-3


def test_a_bfloat16_policy_acts_with_the_weights_of_its_last_update(half, make_bench):
    """Casts follow the float32 weights after every step of the optimizer."""
    bench = make_bench(half, steps=2)
    for kind in (lambda: SingleLayerPolicies(half, [1]), lambda: FullPolicy(half)):
        policies = kind()
        learn(bench, policies, 1e-2)
        acts = policies.decoder([0]).extend([[5, 6, 7]])
        network = copy.deepcopy(half.model)
        part = network.model.layers[1] if len(policies.parameters(0)) < 15 else network
        part.load_state_dict(policies.copies[0].trained, strict=False)
        expected = network(torch.tensor([[5, 6, 7]])).logits[:, -1]
        untrained = half.model(torch.tensor([[5, 6, 7]])).logits[:, -1]
        off = (acts.float() - expected.float()).abs().max()
        assert off < 0.1 * (expected - untrained).abs().max()


@pytest.mark.parametrize("fused", [False, True])
def test_what_is_trained_is_cast_when_it_has_changed(tiny, fused):
    """Values are those of the float32 parameters at every call; gradients add up in float32."""
    layer = copy.deepcopy(tiny("llama").layers[0].mlp).bfloat16()
    trained = TrainedCopy(layer)
    given = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    optimizer = torch.optim.AdamW(trained.trained.values(), 0.1, fused=fused)
    for _ in range(2):
        expected = copy.deepcopy(layer)
        for name, parameter in expected.named_parameters():
            parameter.data = trained.trained[name].detach().bfloat16()
        expected.requires_grad_(True)
        sums = {name: torch.zeros_like(p) for name, p in trained.trained.items()}
        for _ in range(3):
            assert torch.equal(trained(given), expected(given))
            trained(given).sum().backward()
            expected.zero_grad()
            expected(given).sum().backward()
            for name, parameter in expected.named_parameters():
                sums[name] += parameter.grad.float()
        for name, parameter in trained.trained.items():
            assert torch.equal(parameter.grad, sums[name])
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        trained.trained["gate_proj.weight"].zero_()
    assert not trained(given).any()
