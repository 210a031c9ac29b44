"""`layerpick zoo`: listing, and the first sentence of every mistake."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from layerpick.selector.app.app import app
from layerpick.training.errors import LayerpickError
from layerpick.training.pretraining.zoo import ZOO

runner = CliRunner()


def test_the_list_names_every_model():
    listed = json.loads(runner.invoke(app, ["zoo", "list", "--json"]).stdout)
    assert [model["name"] for model in listed] == list(ZOO)
    assert listed[0] == {
        "name": "qwen2-6-sum-noise",
        "family": "qwen2",
        "layers": 6,
        "width": 64,
        "task": "math",
        "skill": "sum",
        "gain": "noise",
    }
    table = runner.invoke(app, ["zoo", "list"]).stdout
    assert all(name in table for name in ZOO)


@pytest.mark.parametrize("verb", ["build", "sweep"])
def test_an_unknown_model_is_one_sentence(verb, tmp_path):
    result = runner.invoke(app, ["zoo", verb, "zebra", "--zoo", str(tmp_path)])
    assert isinstance(result.exception, LayerpickError)
    assert "no model 'zebra'" in str(result.exception)


def test_a_model_that_is_there_is_not_made_again(tmp_path):
    folder = tmp_path / "qwen2-6-sum-noise"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    result = runner.invoke(app, ["zoo", "build", folder.name, "--zoo", str(tmp_path)])
    assert result.exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["config.json"]
