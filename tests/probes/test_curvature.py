"""Derivatives along the gradient against dense Hessians and finite steps, in float64."""

import numpy as np
import pytest
import torch

from layerpick.probes.base import ProbeSizes
from layerpick.probes.curvature import STEP_KL, CurvatureProbe, layer_curvature
from layerpick.probes.reading.passes import attention_as
from layerpick.probes.reading.token_losses import contrast
from layerpick.training.batches.padded import token_log_probs


def objective(probe_input, read, layer: int, offset: torch.Tensor, base=None) -> torch.Tensor:
    """Importance-ratio objective with the layer's parameters moved by `offset` (flat)."""
    names = dict(probe_input.model.layers[layer].named_parameters())
    sizes = [p.numel() for p in names.values()]
    parts = offset.split(sizes)
    moved = {
        probe_input.model.layers.prefix(layer) + name: p.detach() + part.view_as(p)
        for (name, p), part in zip(names.items(), parts, strict=True)
    }

    def model(**kwargs):
        return torch.func.functional_call(probe_input.model.model, moved, kwargs=kwargs)

    # float64 all the way: the library's own function rounds to float32
    logits = model(
        input_ids=read.batch.input_ids,
        attention_mask=read.batch.attention_mask,
        position_ids=read.batch.position_ids,
        use_cache=False,
        logits_to_keep=read.batch.columns + 1,
    ).logits[:, :-1]
    scaled = torch.log_softmax(logits.double() / probe_input.rollouts.origin.temperature, -1)
    log_probs = scaled.gather(-1, read.batch.targets.unsqueeze(-1)).squeeze(-1)
    ratio = (log_probs - (log_probs.detach() if base is None else base)).exp()
    return (read.weights.double() * ratio).sum() / len(read.weights), log_probs


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma2"])
@pytest.mark.parametrize("layer", [0, 2])
def test_it_equals_the_derivatives_of_the_ratio_objective(make_probe_input, tiny, family, layer):
    """The Hessian of the ratio itself, and slopes by finite steps of single parameters' sum."""
    model = tiny(family)
    model.model.double()
    probe_input = make_probe_input(model, sizes=ProbeSizes(curvature_trajectories=4))
    read = contrast(probe_input, 4)
    with attention_as(model.model, "eager"):
        found = layer_curvature(probe_input, read, layer)
        zero = torch.zeros(model.layers.parameter_count(layer), dtype=torch.float64)
        value, base = objective(probe_input, read, layer, zero.requires_grad_(True))
        gradient = torch.autograd.grad(value, zero)[0]
        direction, base = gradient / gradient.norm(), base.detach()

        def alone(offset):
            return objective(probe_input, read, layer, offset, base)[0]

        product = torch.autograd.functional.hvp(alone, zero.detach(), direction)[1]
        step = 1e-3 if family == "gpt2" else 1e-2  # the others' norms compute in float32
        with torch.no_grad():
            forth = objective(probe_input, read, layer, step * direction, base)
            back = objective(probe_input, read, layer, -step * direction, base)
    second = float(product @ direction)
    assert found.slope == pytest.approx(float(gradient.norm()), rel=1e-4)
    assert found.curvature == pytest.approx(-second, rel=1e-3, abs=1e-4)
    slopes = (forth[1] - back[1]) / (2 * step) * read.batch.written
    assert found.kl_curvature == pytest.approx(float((slopes**2).sum(1).mean()), rel=2e-2)
    if family == "gpt2":  # float64 throughout, so that second differences mean something
        difference = float((forth[0] - 2 * value.detach() + back[0]) / step**2)
        assert found.curvature == pytest.approx(-difference, rel=1e-3)
    model.model.float()


def test_louder_weights_change_slope_and_curvature_alike(make_probe_input, tiny):
    """v and the policy's movement along it stay; J, and so its slope and curvature, grow."""
    probe_input = make_probe_input(tiny("llama"))
    read = contrast(probe_input, 4)
    louder = type(read)(read.batch, 3 * read.weights, read.tokens)
    with attention_as(probe_input.model.model, "eager"):
        once, thrice = (layer_curvature(probe_input, part, 1) for part in (read, louder))
    assert thrice.slope == pytest.approx(3 * once.slope, rel=1e-4)
    assert thrice.curvature == pytest.approx(3 * once.curvature, rel=1e-3)
    assert thrice.kl_curvature == pytest.approx(once.kl_curvature, rel=1e-4)
    assert thrice.gain(STEP_KL) == pytest.approx(3 * once.gain(STEP_KL), rel=1e-3)


def test_a_layer_without_gradient_has_no_gain(make_probe_input, tiny):
    probe_input = make_probe_input(tiny("llama"))
    read = contrast(probe_input, 2)
    silent = type(read)(read.batch, torch.zeros_like(read.weights), read.tokens)
    with attention_as(probe_input.model.model, "eager"):
        assert layer_curvature(probe_input, silent, 0).gain(STEP_KL) == 0


def test_it_leaves_the_model_as_it_was(make_probe_input, tiny):
    probe_input = make_probe_input(tiny("qwen3"))
    before = {name: value.clone() for name, value in probe_input.model.model.state_dict().items()}
    found = CurvatureProbe().measure(probe_input)
    assert all(np.isfinite(values).all() for values in found.features.values())
    assert probe_input.model.model.config._attn_implementation == "sdpa"
    for name, value in probe_input.model.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(p.requires_grad for p in probe_input.model.model.parameters())
    assert (
        token_log_probs(probe_input.model.model, contrast(probe_input, 2).batch, 1.0).grad_fn
        is None
    )
