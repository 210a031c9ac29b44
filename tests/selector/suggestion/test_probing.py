"""`layerpick suggest` with a warm-up, and with rollouts of another task."""

import dataclasses
import json

import pytest

import layerpick.selector.app.app as cli
from layerpick import suggest
from layerpick.training.errors import LayerpickError

REWARD = "def even(completions, **_):\n    return [1.0 - len(c) % 2 for c in completions]\n"


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


@pytest.fixture
def saved(layerpick, tmp_path):
    """Rollouts of 4 prompts with 4 completions each."""
    layerpick("--probes", "weights", "--save-rollouts", str(tmp_path / "r.safetensors"))
    return str(tmp_path / "r.safetensors")


def test_options_that_contradict_the_rollouts_reused_are_refused(
    saved, arguments, settings, tmp_path, capsys
):
    (tmp_path / "other.py").write_text(REWARD)
    reuse = ["--rollouts", saved]
    for other, said in (
        (["--temperature", "0.5"], "--temperature 1.0, not 0.5"),
        (["--max-new-tokens", "6"], "--max-new-tokens 5, not 6"),
        (["--group-size", "8"], "--group-size 4, not 8"),  # what is usual, but asked for
        (["--prompts", "64"], "--prompts 4, not 64"),
        (["--stop", "x"], "another prompt form"),
        (["--reward", f"{tmp_path / 'other.py'}:even"], "another reward"),
    ):
        assert cli.run([*arguments, *reuse, *other]) == 2, other
        (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("Error: "))
        assert said in line and "r.safetensors" in line
    assert cli.run([*arguments, *reuse, "--seed", "7"]) == 0  # of what the probes draw


def test_rollouts_are_shown_as_they_were_sampled(saved, arguments, capsys):
    form = arguments[1 : arguments.index("--prompts")]
    show = ["rollouts", *form, "--rollouts", saved]
    capsys.readouterr()
    assert cli.run([*show, "--prompts", "3", "--samples", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["rollouts"]) == 3 == len({each["prompt"] for each in shown["rollouts"]})
    assert shown["max_new_tokens"] == 5
    for other in (["--temperature", "0.5"], ["--max-new-tokens", "6"]):
        assert cli.run([*show, *other]) == 2
        assert f"{other[0]} " in capsys.readouterr().err
