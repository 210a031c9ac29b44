import pytest
import torch
from torch import nn

from layerpick.training.models.freezing import (
    ChangeCheck,
    FreezingError,
    check_gradients,
    check_optimizer,
    freeze,
    no_graph_below,
    optimizer_bytes,
    thaw,
)


def loss_of(model):
    tokens = torch.arange(20).reshape(2, 10)
    return model.model(input_ids=tokens, labels=tokens).loss


def test_exactly_one_layer_of_every_family(tiny, family):
    model = tiny(family)
    trainable = freeze(model, [1])
    expected = {id(parameter) for parameter in model.layers[1].parameters()}
    assert {id(p) for p in model.model.parameters() if p.requires_grad} == expected
    assert trainable.count == model.layers.parameter_count(1)
    loss_of(model).backward()
    with_gradient = {id(p) for p in model.model.parameters() if p.grad is not None}
    assert with_gradient <= expected


def test_several_layers_and_all(tiny):
    model = tiny("gpt2")  # its head is its embedding
    assert freeze(model, [2, 0]).layers == (0, 2)
    everything = freeze(model, None)
    assert everything.layers is None
    assert everything.count == sum(p.numel() for p in model.model.parameters())
    assert all(p.requires_grad for p in model.model.parameters())


def test_bfloat16_weights_are_trained_in_float32_and_given_back(tiny):
    model = tiny("llama")
    model.model.bfloat16()
    trainable = freeze(model, [1])
    kinds = {n: p.dtype for n, p in model.model.named_parameters()}
    for name, kind in kinds.items():
        assert kind == (torch.float32 if name in trainable.parameters else torch.bfloat16)
    thaw(model, trainable, torch.bfloat16)
    assert {p.dtype for p in model.model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.model.parameters())


def test_a_gradient_elsewhere_stops_the_run(tiny):
    model = tiny("qwen3")
    trainable = freeze(model, [1])
    model.model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(FreezingError, match=r"model\.embed_tokens\.weight should not, and none"):
        check_gradients(model.model, trainable)
    model.model.get_input_embeddings().weight.requires_grad_(False)
    model.layers[1].mlp.up_proj.weight.requires_grad_(False)
    with pytest.raises(FreezingError, match=r"none should not, and model\.layers\.1\.mlp\.up_proj"):
        check_gradients(model.model, trainable)


def test_a_layers_weight_used_elsewhere_stops_the_run(tiny):
    model = tiny("qwen3")
    model.model.second = nn.Linear(1, 1)
    model.model.second.weight = model.layers[1].mlp.up_proj.weight
    with pytest.raises(FreezingError, match="second.weight should not"):
        freeze(model, [1])


def test_an_optimizer_that_holds_less_or_more_stops_the_run(tiny):
    model = tiny("qwen3")
    trainable = freeze(model, [1])
    own = list(trainable.parameters.values())
    check_optimizer(model.model, trainable, torch.optim.AdamW(own))
    with pytest.raises(FreezingError, match="held by the optimizer"):
        check_optimizer(model.model, trainable, torch.optim.AdamW(own[1:]))
    more = [*own, model.model.get_input_embeddings().weight]
    with pytest.raises(FreezingError, match=r"embed_tokens\.weight should not"):
        check_optimizer(model.model, trainable, torch.optim.AdamW(more))


def one_step(model, trainable, tamper=lambda: None):
    check = ChangeCheck(model.model, trainable)
    optimizer = torch.optim.AdamW(trainable.parameters.values(), 1e-3)
    loss_of(model).backward()
    assert check.before_step(1e-3)
    optimizer.step()
    tamper()
    check.after_step()
    return optimizer


def test_what_changed_in_a_step(tiny):
    model = tiny("qwen3")
    trainable = freeze(model, [1])
    optimizer = one_step(model, trainable)
    # AdamW: two float32 moments for each parameter and a float32 step count for each tensor.
    assert optimizer_bytes(optimizer) == 8 * trainable.count + 4 * len(trainable.parameters)


def test_a_step_below_rounding_need_not_move_a_weight(tiny):
    """Of norms at 1 a step of 2e-8, as early in a warm-up, leaves every bit as it was."""
    model = tiny("qwen3")
    trainable = freeze(model, [1])
    norm = trainable.parameters["model.layers.1.input_layernorm.weight"]
    with torch.no_grad():
        norm.fill_(1.0)
    check = ChangeCheck(model.model, trainable)
    optimizer = torch.optim.AdamW(trainable.parameters.values(), 2e-8, weight_decay=0.0)
    loss_of(model).backward()
    assert check.before_step(2e-8)
    optimizer.step()
    assert bool((norm == 1.0).all())
    check.after_step()


def test_a_frozen_weight_that_changes_stops_the_run(tiny):
    model = tiny("qwen3")
    trainable = freeze(model, [1])

    def tamper():
        with torch.no_grad():
            model.layers[2].mlp.up_proj.weight[0, 0] += 1e-6

    with pytest.raises(FreezingError, match=r"changed in a step.*model\.layers\.2\.mlp\.up_proj"):
        one_step(model, trainable, tamper)


def test_steps_whose_bits_cancel_are_changes(tiny):
    """Below 1 a step is twice as many bits as above it: two up and one down cancel in a sum."""
    model = tiny("qwen3")
    trainable = freeze(model, [1])
    norm = trainable.parameters["model.layers.1.input_layernorm.weight"]
    step = 2.0**-15
    turns = torch.tensor([step, step, -step]).repeat(len(norm) // 3)

    def tamper():
        norm.data.fill_(1.0)
        norm.data[: len(turns)] += turns

    with torch.no_grad():
        norm.fill_(1.0)
    before = norm.detach().clone()
    one_step(model, trainable, tamper)
    moved = norm.detach().view(torch.int32).long() - before.view(torch.int32).long()
    assert moved.any() and moved.sum() == 0


def test_a_trained_weight_that_does_not_change_stops_the_run(tiny):
    model = tiny("qwen3")
    trainable = freeze(model, [1])
    weight = model.layers[1].mlp.up_proj.weight
    before = weight.detach().clone()

    def tamper():
        weight.data.copy_(before)

    with pytest.raises(FreezingError, match=r"none should not, and .*up_proj.weight should"):
        one_step(model, trainable, tamper)


def test_a_step_without_gradients_proves_nothing(tiny):
    model = tiny("qwen3")
    check = ChangeCheck(model.model, freeze(model, [1]))
    assert not check.before_step(1e-3)
    loss_of(model).backward()
    assert not check.before_step(0.0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_graph_below_the_trained_layer(tiny, checkpointing):
    """Neither with gradient checkpointing: nothing there is run a second time."""
    model = tiny("llama")
    freeze(model, [2])
    model.model.train()
    passes, graphs = [0, 0, 0], {}
    for number, layer in enumerate(model.layers):

        def count(module, args, number=number):
            passes[number] += 1

        def look(module, args, output, number=number):
            graphs[number] = (output if torch.is_tensor(output) else output[0]).requires_grad

        layer.mlp.register_forward_pre_hook(count)  # inside of what is checkpointed
        layer.register_forward_hook(look)
    with no_graph_below(model.model):
        if checkpointing:
            model.model.gradient_checkpointing_enable({"use_reentrant": False})
        loss_of(model).backward()
    assert passes == [1, 1, 2 if checkpointing else 1]
    assert graphs == {0: False, 1: False, 2: True}
