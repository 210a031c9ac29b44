"""`layerpick export` as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from layerpick.selector.app.app import app
from layerpick.selector.prepare import prepare
from layerpick.selector.settings import ModelChoice, SamplingChoice
from layerpick.selector.suggestion.run import suggest
from layerpick.training.engine.loop import step_seed
from layerpick.training.episodes.rendering import Renderer
from layerpick.training.tasks.math import MathTask
from layerpick.training.tasks.settings import TaskSettings


@pytest.fixture
def suggestion(arguments, tmp_path) -> Path:
    """A suggestion for a tiny model."""
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return tmp_path / "out" / "suggestion.json"


def export(*arguments) -> dict:
    result = CliRunner().invoke(app, ["export", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_files_lie_beside_the_suggestion(suggestion):
    answer = export(suggestion, "--to", "axolotl")
    pick = json.loads(suggestion.read_text())["pick"]
    assert answer["layers"] == [pick]
    assert answer["prefixes"] == [f"model.layers.{pick}."]
    place = suggestion.parent / "export" / "axolotl"
    assert answer["files"] == [str(place / "axolotl.yaml"), str(place / "axolotl-lora.yaml")]
    assert f'unfrozen_parameters: ["^model.layers.{pick}."]' in (place / "axolotl.yaml").read_text()
    assert "chance of being the best layer" in (place / "axolotl.yaml").read_text()


def test_other_layers_and_another_place(suggestion, tmp_path):
    answer = export(suggestion, "--to", "peft", "--layer", "top:2", "--out", tmp_path / "mine")
    ranked = json.loads(suggestion.read_text())["layers"]
    best = sorted(ranked, key=lambda layer: -layer["predicted"])[:2]
    assert answer["layers"] == sorted(layer["layer"] for layer in best)
    assert answer["files"] == [str(tmp_path / "mine" / "lora.py")]
    assert "Chosen by --layer top:2." in (tmp_path / "mine" / "lora.py").read_text()


def test_the_advised_rate_is_the_picks_alone(suggestion):
    advised = {**json.loads(suggestion.read_text()), "learning_rate": 3.25e-4}
    suggestion.write_text(json.dumps(advised))
    written = suggestion.parent / "export" / "axolotl" / "axolotl.yaml"
    export(suggestion, "--to", "axolotl")
    assert "0.000325" in written.read_text()
    export(suggestion, "--to", "axolotl", "--layer", "top:2")
    assert "0.000325" not in written.read_text()


def test_rows_are_those_that_training_asks(settings, few, short, tiny, tmp_path):
    """In its order, as the model reads them."""
    model, sizes = ModelChoice(str(tiny("qwen3").folder)), {"rollouts": few, "sampling": short}
    own = replace(settings, reward=None, template=None)
    with pytest.MonkeyPatch.context() as patch:  # a random model solves no sums
        patch.setattr(MathTask, "rewards", lambda self, prompts, texts: [len(t) % 2 for t in texts])
        made = suggest(model, "math", settings=own, probes=("weights",), **sizes)
    made.save(tmp_path / "suggestion.json")
    export(tmp_path / "suggestion.json", "--to", "trl")
    lines = (tmp_path / "export/trl/data/train.jsonl").read_text().splitlines()
    task = prepare(model, "math", TaskSettings(dataset=settings.dataset), SamplingChoice()).task
    asked = [prompt for step in (0, 1) for prompt in task.prompts("train", 16, step_seed(0, step))]
    tokenizer = tiny("qwen3").tokenizer
    renderer = Renderer.of(tokenizer, task)
    for line, prompt in zip(lines, asked, strict=False):
        text = json.loads(line)["prompt"]
        assert tuple(tokenizer(text)["input_ids"]) == renderer.tokens(prompt)
        content, columns = json.loads(json.loads(line)["row"])
        assert (content, columns["answer"]) == (prompt.content, prompt.columns["answer"])
    assert len(lines) == 60 * 16


@pytest.mark.slow
def test_the_script_for_trl_trains_exactly_the_layer(suggestion, tiny):
    """The exported script itself, as it is but for the number of steps."""
    export(suggestion, "--to", "trl", "--layer", "1")
    place = suggestion.parent / "export" / "trl"
    (place / "reward.py").write_text(
        "def reward(completions, **_):\n    return [float(len(c) % 2) for c in completions]\n"
    )
    script = place / "train.py"
    script.write_text(script.read_text().replace("max_steps=60", "max_steps=2"))
    subprocess.run([sys.executable, script.name], cwd=place, check=True, env=os.environ)
    before = dict(tiny("qwen3").model.named_parameters())
    after = load_file(place / "trained" / "model.safetensors")
    changed = {n for n, p in before.items() if n in after and not p.detach().equal(after[n])}
    assert changed
    assert all(name.startswith("model.layers.1.") for name in changed)


def test_mistakes_are_said(suggestion, tmp_path):
    runner = CliRunner()
    for arguments, words in (
        (["--to", "trlx"], "--to 'trlx' is unknown"),
        (["--to", "trl", "--layer", "7"], "layers are 0 to 2"),
        (["--to", "trl", "--layer", "best"], "--layer 'best' is none of: auto, top:3"),
    ):
        result = runner.invoke(app, ["export", str(suggestion), *arguments])
        assert words in str(result.exception)
    empty = tmp_path / "empty"
    empty.mkdir()
    result = runner.invoke(app, ["export", str(empty), "--to", "trl"])
    assert "is not the folder of a run" in str(result.exception)
