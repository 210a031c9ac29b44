"""What one file can add is used by name, from the command line, as the examples say."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from layerpick.calibration.predictors import candidates
from layerpick.calibration.predictors.candidates import from_settings, settings_of, with_own
from layerpick.calibration.predictors.regressors import Rows
from layerpick.calibration.predictors.stored import load_predictors
from layerpick.probes.table import find_probe
from layerpick.probes.testing import check_probe, check_repeats, make_probe_input
from layerpick.selector.app.app import run
from layerpick.selector.recalibration import run as calibrating
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.settings import TaskSettings
from layerpick.training.tasks.table import make_task

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ("--prompts", "4", "--group-size", "4", "--max-new-tokens", "4", "--device", "cpu")


@pytest.fixture
def layerpick(monkeypatch, capsys, tmp_path):
    """Run a command in this process; returns what it printed."""

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["layerpick", *map(str, arguments)])
        code = run()
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture
def built_in():
    """Prompts of the built-in model for math, which has something to learn."""
    return ("--task", "math", *SMALL)


def test_a_probe(layerpick, built_in):
    name = f"{EXAMPLES / 'own_probe.py'}:Turn"
    found = json.loads(layerpick("suggest", *built_in, "--probes", f"weights,{name}", "--json"))
    assert [probe["name"] for probe in found["cost"]["probes"]] == ["weights", "turn"]
    assert all(0 < layer["features"]["turn_angle"] < np.pi for layer in found["layers"])
    assert "turn" in layerpick("suggest", *built_in, "--probes", name)


def test_the_probe_keeps_the_contract(tiny):
    task = make_task(f"{EXAMPLES / 'own_task.py'}:Rhymes", TaskSettings())
    task.rewards = lambda _, completions: [len(text) % 2 for text in completions]
    probe_input = make_probe_input(tiny("qwen3"), task)
    probe = find_probe(f"{EXAMPLES / 'own_probe.py'}:Turn")
    check_probe(probe, probe_input)
    check_repeats(probe, probe_input)


def test_a_task(tiny, layerpick):
    name = f"{EXAMPLES / 'own_task.py'}:Rhymes"
    task = make_task(name, TaskSettings())
    train, heldout = (task.prompts(split, 20, 0) for split in ("train", "heldout"))
    assert not {p.content for p in train} & {p.content for p in heldout}
    light = next(p for p in train if p.columns["word"] == "light")
    assert task.rewards([light] * 3, [" night.\n", "light", "day"]) == [1.0, 0.0, 0.0]
    code = _exit_code(layerpick, "suggest", tiny("llama").folder, "--task", name, *SMALL)
    assert code in (0, 3)  # a random model may never rhyme: then there is nothing to learn from


def _exit_code(layerpick, *arguments) -> int:
    sys.argv = ["layerpick", *map(str, arguments)]
    return run()


def test_an_algorithm_trains_under_trl_as_in_the_engine(layerpick, built_in, tmp_path):
    name = f"{EXAMPLES / 'own_algorithm.py'}:Rloo"
    sizes = ("--steps", "2", "--heldout-prompts", "4", "--heldout-samples", "1")
    out = layerpick(
        "train", *built_in, "--layer", "3", "--algorithm", name, *sizes, "--out", "run", "--json"
    )
    assert json.loads(out)["cost"]["steps"] == 2
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["settings"]["algorithm"] == make_algorithm(name).name == "rloo"


def test_a_regressor():
    name = f"{EXAMPLES / 'own_regressor.py'}:Nearest"
    *_, own = with_own(name) or ()
    generator = np.random.default_rng(0)
    columns = generator.normal(size=(60, 12))
    rows = Rows(columns, columns[:, 0], np.ones(60), np.repeat(np.arange(6), 10))
    predicted = own.fit(rows)(columns)
    assert np.corrcoef(predicted, columns[:, 0])[0, 1] > 0.5
    assert from_settings(settings_of(own)) == own
    with pytest.raises(LayerpickError, match="'nearest' is unknown"):
        with_own("nearest")


def test_a_regressor_is_judged_and_kept(
    layerpick, made_examples, write_sweep, monkeypatch, tmp_path
):
    monkeypatch.setattr(candidates, "CANDIDATES", ())  # of these, others might be better
    for example in made_examples(6):
        write_sweep(example, tmp_path / "sweeps")
    own = ("--regressor", f"{EXAMPLES / 'own_regressor.py'}:Nearest")
    arguments = ("--sweeps", tmp_path / "sweeps", "--level", "weights", *own)
    judged = json.loads(layerpick("evaluate", *arguments, "--json"))["populations"]["pretrained"]
    lessons = {each["lesson"] for each in judged["levels"]["weights"]["sweeps"]}
    assert lessons == {"nearest (neighbours=9, keep=8)"}
    monkeypatch.setattr(calibrating, "SHIPPED_SWEEPS", tmp_path / "sweeps")
    layerpick("calibrate", *own, "--out", tmp_path / "predictors")
    kept = load_predictors(tmp_path / "predictors")["weights"].lessons["pretrained"].lesson
    assert (kept.regressor.name, kept.regressor.neighbours) == ("nearest", 9)


def test_a_world(tiny, layerpick):
    name = f"{EXAMPLES / 'own_world.py'}:Doors?hints=false"
    arguments = ("--task", "agentic", "--env", name, *SMALL)
    assert _exit_code(layerpick, "suggest", tiny("llama").folder, *arguments) in (0, 3)
    world = runpy.run_path(str(EXAMPLES / "own_world.py"))["Doors"]()
    world.reset(2)
    steps = [world.step(action) for action in world.actions]
    assert sum(step.reward for step in steps) == 1


def test_a_reward():
    reward = runpy.run_path(str(EXAMPLES / "own_reward.py"))["short_and_right"]
    right, wrong = reward(["7", "it may be 8"], answer=["7", "7"])
    assert 1 < right < 1.1 and 0 < wrong < 0.1


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("nowhere.py:X", make_algorithm, "nowhere.py does not exist"),
        (f"{EXAMPLES / 'own_world.py'}:Doors", make_algorithm, "derives from Algorithm"),
        (f"{EXAMPLES / 'own_world.py'}:Windows", find_probe, "no class 'Windows'"),
        ("chess", make_algorithm, "'chess' is unknown: use grpo, dr_grpo, gigpo"),
    ],
)
def test_what_is_not_there_is_one_sentence(name, make, said):
    with pytest.raises(LayerpickError, match=re.escape(said)):
        make(name)


def test_an_unfinished_class_says_what_it_lacks(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from layerpick import Algorithm\nclass Half(Algorithm):\n    name = 'half'\n"
        "    def advantages(self, group): return []\n"
    )
    with pytest.raises(LayerpickError, match="lacks what every Algorithm has: token_weight"):
        make_algorithm(f"{tmp_path / 'mine.py'}:Half")


def test_installed_packages_offer_theirs(monkeypatch):
    from importlib.metadata import EntryPoint

    from layerpick.training import own_code

    value = "layerpick.training.algorithms.grpo:Grpo"
    monkeypatch.setattr(
        own_code, "entry_points", lambda group: [EntryPoint("theirs", value, group)]
    )
    own_code.offered.cache_clear()
    try:
        assert make_algorithm("theirs").name == "grpo"
    finally:
        own_code.offered.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["suggest_in_python.py", "sweep_and_verify.py"])
def test_scripts_run(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert "layer" in capsys.readouterr().out
