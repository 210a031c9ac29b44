import pytest
import torch
from torch import nn

from layerpick.training.errors import LayerpickError
from layerpick.training.models.layers import find_decoder_layers


def test_finds_the_layers_of_every_family(tiny, family):
    model = tiny(family)
    assert len(model.layers) == 3
    named = dict(model.model.named_modules())
    for layer, module in enumerate(model.layers):
        assert named[model.layers.prefix(layer).removesuffix(".")] is module
    # Together with what is outside them, the layers' parameters are all parameters, each once.
    inside = {id(p) for module in model.layers for p in module.parameters()}
    prefixes = tuple(model.layers.prefix(layer) for layer in range(3))
    by_name = {id(p) for n, p in model.model.named_parameters() if n.startswith(prefixes)}
    assert inside == by_name
    assert sum(model.layers.parameter_count(k) for k in range(3)) == sum(
        p.numel() for n, p in model.model.named_parameters() if n.startswith(prefixes)
    )
    assert [model.layers.depth(k) for k in range(3)] == [0.0, 0.5, 1.0]


def test_a_layer_changes_the_output_and_earlier_ones_run_first(tiny):
    model = tiny("llama")
    order = []
    for layer, module in enumerate(model.layers):
        module.register_forward_hook(lambda *_, layer=layer: order.append(layer))
    model.model(input_ids=torch.tensor([[5, 6]]))
    assert order == [0, 1, 2]


def test_shared_parameters_are_refused(tiny):
    model = tiny("qwen3").model
    model.model.layers[2].mlp = model.model.layers[0].mlp
    with pytest.raises(LayerpickError, match=r"layers\.2\.mlp.*same parameter.*layer 0"):
        find_decoder_layers(model)


def test_the_message_says_what_was_found(tiny):
    model = tiny("qwen3").model
    model.model.layers = nn.ModuleList(list(model.model.layers)[:2])
    with pytest.raises(LayerpickError, match=r"3 decoder layers; 0 lists.*model\.layers \(2\)"):
        find_decoder_layers(model)
    model.model.layers = nn.ModuleList([*model.model.layers, nn.Identity()])
    model.model.other = nn.ModuleList(nn.Identity() for _ in range(3))
    with pytest.raises(LayerpickError, match="2 lists have that length"):
        find_decoder_layers(model)
