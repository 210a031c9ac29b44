"""Several layers together, and everything with some layers at a multiple of the rate."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from layerpick import load_with_delta
from layerpick.training.models.choosing import choose_layers
from layerpick.training.models.freezing import Boost, freeze
from layerpick.training.runs.delta import apply, read_delta
from layerpick.training.runs.folder import DELTA_FILE, RunFolder
from layerpick.training.trl.run import TrlSettings, train

TWO = TrlSettings((0, 2), 1e-3, checkpoint_every=1)
BOOSTED = TrlSettings(None, 1e-4, boost=Boost((1,), 10.0), checkpoint_every=1)


def run(tiny, make_bench, folder, settings, steps, family="qwen3"):
    """A fresh model, trained in a folder, from its last checkpoint if there is one."""
    model = tiny(family)
    bench = make_bench(model, steps=steps)
    train(bench, settings, RunFolder(folder))
    return model


@pytest.mark.parametrize("settings", [TWO, BOOSTED], ids=["two layers", "boost"])
def test_they_save_merge_and_go_on_as_one_layer_does(tiny, make_bench, tmp_path, settings):
    whole = run(tiny, make_bench, tmp_path / "whole", settings, 4)
    # Stopped after two steps, as a kill would leave it, and gone on with.
    run(tiny, make_bench, tmp_path / "parts", settings, 2)
    (tmp_path / "parts" / DELTA_FILE).unlink()
    run(tiny, make_bench, tmp_path / "parts", settings, 4)
    one, other = (load_file(tmp_path / name / DELTA_FILE) for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    prefixes = tuple(whole.layers.prefix(k) for k in settings.layers or range(3))
    named = {name for name, _ in whole.model.named_parameters()}
    wanted = {n for n in named if n.startswith(prefixes)} if settings.layers else named
    assert one.keys() == wanted
    loaded = load_with_delta(tmp_path / "whole", device="cpu").model.state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in whole.model.state_dict().items())
    apply(tmp_path / "whole", tmp_path / "merged", device="cpu")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    assert all(torch.equal(merged[n], t) for n, t in whole.model.state_dict().items())
    _, origin = read_delta(tmp_path / "whole")
    assert (origin.layers, origin.boosted) == (
        settings.layers,
        settings.boost.layers if settings.boost else (),
    )


@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_boosted_layers_move_by_the_multiple(tiny, make_bench, tmp_path, family, schedule):
    """Adam's first step moves each number by its rate, g / (|g| + ε) of it."""
    before = {n: p.detach().clone() for n, p in tiny(family).model.named_parameters()}
    settings = TrlSettings(None, 1e-4, boost=Boost((1,), 10.0), trl={"lr_scheduler_type": schedule})
    model = run(tiny, make_bench, tmp_path, settings, 1, family)
    moved = {n: float((p - before[n]).abs().max()) for n, p in model.model.named_parameters()}
    for name, distance in moved.items():
        factor = 10 if name.startswith(model.layers.prefix(1)) else 1
        # Rounding in float32: of the sum, half a unit in the last place of the weight; of the step.
        rounding = float(before[name].abs().max()) * 2**-23 + factor * 1e-4 * 2**-22
        assert distance <= factor * 1e-4 + rounding
        assert distance >= 0.5 * factor * 1e-4 or not name.startswith(model.layers.path)


def test_all_parameters_train_under_a_boost(tiny):
    model = tiny("qwen3")
    trainable = freeze(model, None, Boost((0, 2), 4.0))
    assert trainable.count == sum(parameter.numel() for parameter in model.model.parameters())
    expected = {
        name: 4.0
        for name, _ in model.model.named_parameters()
        if name.startswith(("model.layers.0.", "model.layers.2."))
    }
    assert trainable.factors == expected


def test_layers_by_a_ranking():
    ranking = (4, 1, 0, 3, 2)
    assert choose_layers("auto", 5, ranking) == (4,)
    assert choose_layers("top:3", 5, ranking) == (0, 1, 4)
    assert choose_layers("top:9", 5, ranking) == (0, 1, 2, 3, 4)
    assert choose_layers("middle:3", 5) == (1, 2, 3)
