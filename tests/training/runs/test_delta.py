"""The trained layer by itself, and merged into its base model."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from layerpick import load_with_delta
from layerpick.training.episodes.scoring import score_model
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import load_model
from layerpick.training.runs.delta import apply, read_delta, save_delta
from layerpick.training.runs.folder import DELTA_FILE, RunFolder
from layerpick.training.trl.run import TrlSettings, train


@pytest.fixture
def trained(tiny, make_bench, tmp_path):
    """A trained model and the run's folder."""
    model = tiny("qwen3")
    train(make_bench(model), TrlSettings((1,), 1e-2), RunFolder(tmp_path / "run"))
    return model, tmp_path / "run"


def test_it_holds_the_layer_alone_and_says_what_it_belongs_to(trained):
    model, run = trained
    tensors = load_file(run / DELTA_FILE)
    expected = {model.layers.prefix(1) + n: p for n, p in model.layers[1].named_parameters()}
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    with safe_open(run / DELTA_FILE, "pt") as file:
        origin = json.loads(file.metadata()["origin"])
    assert origin["weights_hash"] == model.identity.weights_hash
    assert (origin["layers"], origin["algorithm"], origin["task"]) == ([1], "grpo", "letters")
    assert (origin["steps"], origin["seed"], origin["learning_rate"]) == (3, 0, 1e-2)
    assert {"torch", "transformers", "trl", "layerpick"} <= origin["versions"].keys()


def test_loading_with_it_gives_the_trained_model(trained):
    model, run = trained
    loaded = load_with_delta(run, device="cpu")
    ours, theirs = model.model.state_dict(), loaded.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_merged_it_is_an_ordinary_model_with_the_same_score(trained, make_bench, tmp_path):
    model, run = trained
    out = tmp_path / "merged"
    apply(run, out, device="cpu")
    plain = AutoModelForCausalLM.from_pretrained(out)
    ours = model.model.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in plain.state_dict().items())
    assert len(AutoTokenizer.from_pretrained(out)) == len(model.tokenizer)
    bench, merged = make_bench(model), load_model(str(out), device="cpu")
    scores = [
        score_model(m, bench.task, bench.sampling, bench.heldout, seed=1) for m in (model, merged)
    ]
    assert scores[0] == scores[1]


def test_the_model_card_says_what_was_done(trained, tmp_path):
    model, run = trained
    apply(run, tmp_path / "merged", device="cpu")
    card = (tmp_path / "merged" / "README.md").read_text()
    front = card.split("---")[1]
    assert "library_name: transformers" in front and "base_model:" not in front  # a folder
    assert "decoder layer 1 alone" in card and model.identity.weights_hash in card


def test_a_models_own_defaults_go_along(tiny, make_bench, tmp_path):
    base = tmp_path / "base"
    model = tiny("llama")
    model.model.save_pretrained(base)
    model.tokenizer.save_pretrained(base)
    (base / "rows.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n')
    (base / "task.json").write_text('{"task": "math", "dataset": "rows.jsonl"}')
    bench = make_bench(load_model(str(base), device="cpu"), steps=2)
    train(bench, TrlSettings((0,), 1e-3), RunFolder(tmp_path / "run"))
    apply(tmp_path / "run", tmp_path / "merged", device="cpu")
    for name in ("rows.jsonl", "task.json"):
        assert (tmp_path / "merged" / name).read_text() == (base / name).read_text()


def test_everything_trained_is_applied_too(tiny, make_bench, tmp_path):
    model = tiny("gpt2")  # its head is its embedding
    train(make_bench(model, steps=2), TrlSettings(None, 1e-3), RunFolder(tmp_path / "run"))
    apply(tmp_path / "run", tmp_path / "merged", device="cpu")
    ours = model.model.state_dict()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_other_weights_are_refused(trained, tmp_path):
    model, run = trained
    other = tmp_path / "other"
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight[0, 0] += 1
    model.model.save_pretrained(other)
    model.tokenizer.save_pretrained(other)
    with pytest.raises(LayerpickError, match="trained in other weights than those of"):
        apply(run, tmp_path / "merged", str(other), device="cpu")
    assert not (tmp_path / "merged").exists()


def test_what_is_no_trained_layer_is_refused(trained, tmp_path):
    _, run = trained
    with pytest.raises(LayerpickError, match="holds no layer_delta.safetensors"):
        read_delta(tmp_path)
    (tmp_path / DELTA_FILE).write_bytes((run / DELTA_FILE).read_bytes()[:200])
    with pytest.raises(LayerpickError, match="cannot be read as a trained layer"):
        read_delta(tmp_path)
    tensors, origin = read_delta(run)
    wrong = {name + "s": tensor for name, tensor in tensors.items()}
    save_delta(tmp_path / DELTA_FILE, wrong, origin)
    with pytest.raises(LayerpickError, match="has no parameter model"):
        load_with_delta(tmp_path, device="cpu")
    with pytest.raises(LayerpickError, match="exists already"):
        apply(run, run)
