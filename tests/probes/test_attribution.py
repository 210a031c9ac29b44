"""Captum's attributions against what they must add up to."""

import pytest
import torch

from layerpick.probes.attribution import AttributionProbe, LayerAttributions, shuffled
from layerpick.probes.base import ProbeSizes
from layerpick.probes.reading.token_losses import contrast


@pytest.fixture
def read(make_probe_input, tiny, family):
    model = tiny(family)
    model.model.double()
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(0.3)  # a smoother model, so that few integration steps suffice
    probe_input = make_probe_input(
        model, sizes=ProbeSizes(attribution_trajectories=2, integration_steps=64)
    )
    return probe_input, contrast(probe_input, 2)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_integrated_attributions_are_complete(read):
    """All that is predicted passes through each layer's output, so parts sum to the whole."""
    probe_input, chosen = read
    attributions = LayerAttributions(probe_input, chosen)
    with torch.no_grad():
        whole = attributions.value(attributions.embeddings)
        nothing = attributions.value(attributions.baselines)
    for layer in range(3):
        found = attributions.of(layer)
        for name in ("integrated_gradients", "conductance"):
            error = (found[name].sum(dim=(1, 2)) - (whole - nothing)).abs()
            assert (error < 0.02 * (whole - nothing).abs().max()).all(), name


@pytest.mark.parametrize("family", ["qwen3", "gpt_neox"])
def test_gradient_x_activation_is_the_slope_of_scaling_the_output(read):
    """d/ds f(s · h) at s = 1, by a finite difference."""
    probe_input, chosen = read
    attributions = LayerAttributions(probe_input, chosen)

    def scaled(layer: int, scale: float) -> torch.Tensor:
        def hook(_, args, output):
            if isinstance(output, torch.Tensor):
                return scale * output
            return (scale * output[0], *output[1:])

        handle = probe_input.model.layers[layer].register_forward_hook(hook)
        with torch.no_grad():
            value = attributions.value(attributions.embeddings)
        handle.remove()
        return value.double()

    for layer in range(3):
        slope = (scaled(layer, 1.01) - scaled(layer, 0.99)) / 0.02
        found = attributions.of(layer)["gradient_x_activation"].sum(dim=(1, 2))
        assert found.tolist() == pytest.approx(slope.tolist(), rel=2e-2, abs=1e-4)


def test_features_are_sizes(make_probe_input, tiny):
    probe_input = make_probe_input(tiny("qwen2"))
    found = AttributionProbe().measure(probe_input).features
    assert set(found) == {info.name for info in AttributionProbe.features}
    assert all((values > 0).all() for values in found.values())
    assert not any(p.requires_grad for p in probe_input.model.model.parameters())


def test_the_baseline_has_the_same_tokens(make_probe_input, tiny):
    batch = contrast(make_probe_input(tiny("qwen2")), 4).batch
    mixed = shuffled(batch, seed=0)
    padding = batch.attention_mask == 0
    assert torch.equal(mixed[padding], batch.input_ids[padding])
    assert torch.equal(mixed.sort(dim=1).values, batch.input_ids.sort(dim=1).values)
    assert not torch.equal(mixed, batch.input_ids)
