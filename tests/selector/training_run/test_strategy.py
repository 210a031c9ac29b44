"""What `--layer`, `--boost` and `--by-sweep` come to."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from layerpick.selector.app.app import app
from layerpick.selector.training_run.settings import StrategyChoice
from layerpick.selector.training_run.strategy import check_choice, folder_name
from layerpick.training.errors import LayerpickError
from layerpick.training.runs.folder import RunFolder


def layerpick(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def fast(tiny, settings, tmp_path, monkeypatch):
    """Options of a training run that takes seconds."""
    monkeypatch.chdir(tmp_path)
    return [
        str(tiny("qwen3").folder),
        *("--dataset", settings.dataset, "--template", settings.template),
        *("--reward", settings.reward, "--prompts", "4", "--group-size", "4"),
        *("--max-new-tokens", "5", "--steps", "1", "--heldout-prompts", "4"),
        *("--heldout-samples", "2", "--learning-rate", "1e-4"),
    ]


def test_middle_and_boost(fast, tmp_path):
    assert layerpick("train", *fast, "--layer", "middle:1", "--out", "one").exit_code == 0
    middle = RunFolder(tmp_path / "one")
    assert middle.description().layers == (1,)
    assert middle.result().chosen == "--layer middle:1"
    answer = layerpick("train", *fast, "--boost", "0,2", "--boost-factor", "4", "--out", "two")
    assert answer.exit_code == 0, answer.output
    assert "Trained all parameters, layers 0, 2 at 4 times the rate" in answer.stdout
    boosted = RunFolder(tmp_path / "two").description()
    assert (boosted.layers, boosted.boosted, boosted.boost_factor) == (None, (0, 2), 4.0)


def test_the_best_by_prediction_then_auto(fast, tmp_path):
    """`auto --layer top:2`: the suggestion's first two, together; nothing is predicted of them."""
    answer = layerpick("auto", *fast, "--layer", "top:2", "--with-full", "--out", "all", "--json")
    assert answer.exit_code == 0, answer.output
    suggestion = json.loads((tmp_path / "all" / "suggestion.json").read_text())
    ranked = sorted(suggestion["layers"], key=lambda layer: -layer["predicted"])
    expected = tuple(sorted(layer["layer"] for layer in ranked[:2]))
    assert RunFolder(tmp_path / "all" / "layer").description().layers == expected
    found = json.loads(answer.stdout)
    assert found["verification"]["pick"]["predicted"] is None
    first, second = expected
    assert f"Training layers {first}, {second} of 3 together" in found["headline"]


def test_the_model_card(fast, tmp_path):
    """In the Hub's own reading: results, base and seed; in words: layer, choice, reward, data."""
    assert layerpick("train", *fast, "--layer", "middle:1", "--out", "one").exit_code == 0
    assert layerpick("apply", "one", "--out", "merged").exit_code == 0
    card = ModelCard.load(tmp_path / "merged" / "README.md")
    result = RunFolder(tmp_path / "one").result()
    found = {each.metric_name: each.metric_value for each in card.data.eval_results}
    assert found == {
        "mean reward (this model)": round(result.trained.mean, 4),
        "mean reward (base model)": round(result.base.mean, 4),
    }
    assert card.data.seed == 0
    assert card.data.base_model is None  # a folder of this machine
    for words in ("decoder layer 1 alone", "--layer middle:1", "mine.py:even", "chain_sum"):
        assert words in card.text
    index = card.data.to_dict()["model-index"]
    assert index[0]["results"][0]["task"] == {"type": "text-generation"}


def test_what_contradicts_itself_is_refused(fast):
    for options, words in (
        (["--boost", "1", "--layer", "2"], "leave --layer out"),
        (["--boost", "all"], "--boost all: name layers"),
        (["--boost", "1", "--boost-factor", "0"], "--boost-factor must be above 0"),
        (["--layer", "top:2", "--by-sweep", "."], "holds no"),
        (["--boost", "7"], "--boost 7 does not exist"),
    ):
        assert words in str(layerpick("train", *fast, *options).exception)
    with pytest.raises(LayerpickError, match="leave --layer out"):
        check_choice(StrategyChoice(layer="3", boost="top:3"))


def test_folders_by_what_they_train():
    assert folder_name(StrategyChoice()) == "auto"
    assert folder_name(StrategyChoice(layer="3,4")) == "3-4"
    assert folder_name(StrategyChoice(layer="top:3")) == "top-3"
    assert folder_name(StrategyChoice(boost="top:3", boost_factor=2.5)) == "boost-top-3-x2.5"
