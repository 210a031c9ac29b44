"""Runs by our own engine against TRL's runs of the same settings."""

from __future__ import annotations

import math

import pytest
import torch

from layerpick.training.engine.run import OwnSettings, train
from layerpick.training.errors import LayerpickError, NoSignalError
from layerpick.training.runs.checkpoint import latest_checkpoint
from layerpick.training.runs.delta import read_delta
from layerpick.training.runs.folder import RunFolder
from layerpick.training.runs.rules import NotFiniteError
from layerpick.training.trl import run as trl

RATE = 2e-4


def moved(model, before, names):
    after = dict(model.model.named_parameters())
    return torch.cat([(after[name] - before[name]).flatten() for name in names]).detach()


@pytest.mark.parametrize(
    ("algorithm", "family", "layers"),
    [("grpo", "llama", (1,)), ("dr_grpo", "qwen3", (0, 2)), ("grpo", "qwen3", None)],
)
def test_a_run_is_trls_run(tiny, make_bench, tmp_path, algorithm, family, layers):
    """Same rewards and losses at every step, same weights, which lie in the delta and the model."""
    ours, theirs = tiny(family), tiny(family)
    before = {name: value.clone() for name, value in ours.model.named_parameters()}
    folders = [RunFolder(tmp_path / name) for name in ("own", "trl")]
    bench = make_bench(ours, algorithm, beta=0.02)
    cost = train(bench, OwnSettings(layers, RATE, seed=3), folders[0])
    bench = make_bench(theirs, algorithm, beta=0.02)
    expected = trl.train(bench, trl.TrlSettings(layers, RATE, seed=3), folders[1])
    tensors, origin = read_delta(tmp_path / "own")
    of_trl, origin_of_trl = read_delta(tmp_path / "trl")
    assert tensors.keys() == of_trl.keys() and origin == origin_of_trl
    assert all(torch.equal(dict(ours.model.named_parameters())[n], tensors[n]) for n in tensors)
    found, wanted = moved(ours, before, tensors), moved(theirs, before, tensors)
    assert float((found - wanted).norm() / wanted.norm()) < 0.02
    others = set(before) - set(tensors)
    assert all(torch.equal(dict(ours.model.named_parameters())[n], before[n]) for n in others)
    assert cost.trainable_parameters == expected.trainable_parameters
    assert cost.optimizer_bytes == expected.optimizer_bytes and cost.tokens == expected.tokens
    for mine, step in zip(*(folder.metrics() for folder in folders), strict=True):
        assert mine.values["reward"] == pytest.approx(step.values["reward"], abs=1e-6)
        assert mine.values["signal"] == step.values["signal"]
        lengths = mine.values["completions/mean_length"], step.values["completions/mean_length"]
        assert lengths[0] == pytest.approx(lengths[1])


def test_a_run_that_is_broken_off_goes_on(tiny, make_bench, tmp_path):
    whole, half = tiny("llama"), tiny("llama")
    settings = OwnSettings((1,), RATE, checkpoint_every=2)
    train(make_bench(whole, steps=5), settings, RunFolder(tmp_path / "whole"))
    notes = []

    def stop(step):
        if len(RunFolder(tmp_path / "half").metrics()) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_bench(half, steps=5), settings, RunFolder(tmp_path / "half"), on_step=stop)
    assert not list((tmp_path / "half").glob("*.safetensors")), "no result of a run without an end"
    again = tiny("llama")
    folder = RunFolder(tmp_path / "half")
    train(make_bench(again, steps=5), settings, folder, note=notes.append)
    assert notes == ["Going on from step 2 of 5."]
    assert [step.step for step in folder.metrics()] == [1, 2, 3, 4, 5]
    assert all(map(torch.equal, whole.model.parameters(), again.model.parameters()))


def test_what_cannot_go_on_is_said_and_kept(tiny, make_bench, tmp_path):
    model, folder = tiny("llama"), RunFolder(tmp_path / "poisoned")

    def poison(step):
        if len(folder.metrics()) == 2:
            model.model.model.norm.weight.data.fill_(math.inf)

    with pytest.raises(NotFiniteError, match=r"step 2 is .*: the 2 steps before it are kept in"):
        bench = make_bench(model, steps=5, beta=0.02)
        train(bench, OwnSettings((1,), RATE), folder, on_step=poison)
    assert latest_checkpoint(folder.path).step == 2
    bench = make_bench(tiny("llama"))
    bench.task.rewards = lambda prompts, completions: [0.25] * len(completions)
    with pytest.raises(NoSignalError, match=r"In 3 steps no group's .* \(mean reward 0.25\)"):
        train(bench, OwnSettings((1,), RATE), RunFolder(tmp_path / "silent"))
    half = tiny("llama")
    half.model.half()
    with pytest.raises(LayerpickError, match="float16 is for inference"):
        train(make_bench(half), OwnSettings((1,), RATE), RunFolder(tmp_path / "float16"))


def test_only_what_a_killed_run_has_left_is_removed(tmp_path):
    """The folder may be one that a person keeps other things in."""
    own = [".checkpoint-10-abc", ".metrics.jsonl-abc", ".layer_delta.safetensors-abc"]
    others = [".oh-my-zsh", ".venv-gpu", "checkpoint-notes"]
    for name in (*own, *others):
        (tmp_path / name).mkdir()
    RunFolder(tmp_path).begin(0)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set(others)


def test_an_error_in_the_first_step_leaves_nothing_in_the_way(tiny, make_bench, tmp_path):
    bench, folder = make_bench(tiny("llama")), RunFolder(tmp_path)

    def broken(prompts, completions):
        raise LayerpickError("a mistake in the reward")

    right, bench.task.rewards = bench.task.rewards, broken
    with pytest.raises(LayerpickError, match="mistake in the reward"):
        train(bench, OwnSettings((1,), RATE), folder)
    assert latest_checkpoint(tmp_path) is None and not list(tmp_path.glob("*.safetensors"))
    bench.task.rewards = right
    assert train(bench, OwnSettings((1,), RATE), folder).steps == 3


def test_no_largest_gradient_means_no_clipping(tiny, make_bench, tmp_path):
    """As in TRL, where 0 turns it off."""
    trained = {}
    for largest in (0.0, 1e9):
        model = tiny("llama")
        bench = make_bench(model, steps=1, max_grad_norm=largest)
        train(bench, OwnSettings((1,), RATE), RunFolder(tmp_path / str(largest)))
        trained[largest] = list(model.model.parameters())
    before = list(tiny("llama").model.parameters())
    assert all(map(torch.equal, trained[0.0], trained[1e9]))
    assert not all(map(torch.equal, trained[0.0], before))
