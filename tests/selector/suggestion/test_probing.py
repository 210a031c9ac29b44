"""`layerpick suggest` with a warm-up, and with rollouts of another task."""

import dataclasses
import json

import pytest

import layerpick.selector.app.app as cli
from layerpick import suggest
from layerpick.training.errors import LayerpickError


@pytest.fixture
def layerpick(monkeypatch, arguments, tmp_path):
    """Run `layerpick suggest` in this process; returns what it wrote."""

    def call(*more: str) -> dict:
        monkeypatch.setattr("sys.argv", ["layerpick", *arguments, *more])
        assert cli.run() == 0
        return json.loads((tmp_path / "out" / "suggestion.json").read_text())

    return call


def test_warmup_steps_add_the_warm_up(layerpick):
    found = layerpick("--warmup-steps", "5", "--probes", "weights")
    weights, warm_up = found["cost"]["probes"]
    assert (weights["name"], warm_up["name"]) == ("weights", "warm_up")
    assert warm_up["failure"] is None
    assert weights["sampled_tokens"] == 0 < warm_up["sampled_tokens"] < warm_up["tokens"]
    features = found["layers"][0]["features"]
    assert "warm_up_5_gain" in features and "warm_up_10_gain" not in features


def test_another_task_is_compared_with(layerpick, tiny, settings, few, short, tmp_path, capsys):
    path = tmp_path / "other.safetensors"
    other = dataclasses.replace(settings, dataset="reasoning-gym:chain_sum?max_digits=3")
    saving = dataclasses.replace(few, save=path)
    suggest(str(tiny("qwen3").folder), settings=other, rollouts=saving, sampling=short, probes=[])
    found = layerpick("--also", str(path), "--probes", "weights")
    assert {probe["name"] for probe in found["cost"]["probes"]} == {"weights", "gradient"}
    assert all(-1 <= layer["features"]["task_agreement"] <= 1 for layer in found["layers"])
    capsys.readouterr()
    assert "task_agreement" not in layerpick()["layers"][0]["features"]
    assert "task_agreement" not in capsys.readouterr().err
    foreign = {"rollouts": dataclasses.replace(few, also=path), "sampling": short}
    with pytest.raises(LayerpickError, match=r"other\.safetensors was sampled with other weights"):
        suggest(str(tiny("gpt2").folder), settings=settings, **foreign, probes=[])
