"""`layerpick sweep`, from the command line to the folder and back."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from layerpick.selector.sweep.command import sweep
from layerpick.selector.sweep.report import sparkline
from layerpick.training.errors import LayerpickError

SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"


@pytest.fixture
def layerpick(runs):
    """Run the command; returns what it wrote to stdout."""
    return runs(sweep)


def test_a_sweep_is_measured_shown_and_drawn(layerpick, tiny, tmp_path):
    model, reward = tiny("llama").folder, tmp_path / "mine.py"
    reward.write_text(
        "def early(completions, **_):\n    return [float(text < 'a') for text in completions]\n"
    )
    sizes = ["--steps", 2, "--prompts", 3, "--group-size", 3, "--max-new-tokens", 3]
    data = ["--dataset", SUMS, "--template", "{expression} =", "--heldout-prompts", 4]
    data += ["--reward", f"{reward}:early"]
    options = [*sizes, *data, "--lr-grid", "1e-4", "--seeds", 2, "--out", tmp_path]
    shown = layerpick(model, "--device", "cpu", *options)
    assert "Best: layer" in shown and "layer 2" in shown
    # Two steps at so small a rate gain nothing.
    assert "No contributions." in shown
    (folder,) = tmp_path.glob("*/math-grpo")
    assert (folder / "profile.png").read_bytes().startswith(b"\x89PNG")
    layerpick("--show", folder, "--out", tmp_path / "pages")
    (page,) = (tmp_path / "pages").rglob("report.html")
    assert page.parent.relative_to(tmp_path / "pages") == folder.relative_to(tmp_path)
    (read,) = json.loads(layerpick("--show", folder, "--json"))
    assert [run["layer"] for run in read["runs"]] == [None, None, 0, 1, 2]
    assert read["refusal"] and all(run["contribution"] is None for run in read["runs"])
    rows = list(csv.DictReader(io.StringIO(layerpick("--show", tmp_path, "--csv"))))
    assert [row["run"] for row in rows] == ["base", "full", "layer", "layer", "layer"]
    assert [float(row["score"]) for row in rows] == [run["score"] for run in read["runs"]]
    other = folder.with_name("begun")
    other.mkdir()
    for path in folder.glob("base*.json"):
        (other / path.name).write_bytes(path.read_bytes())
    assert len(json.loads(layerpick("--show", tmp_path, "--json"))) == 1
    with pytest.raises(LayerpickError, match="no finished full run yet"):
        layerpick("--show", other)
    assert read["settings"]["rates"] == "own" and read["learning_rate"] is None
    assert "Each at its own learning rate of 0.0001" in shown and "learning rate" in shown
    shared = ["--shared-lr", "--layers", "1", "--seeds", 1, "--out", tmp_path / "shared"]
    shown = layerpick(model, "--device", "cpu", *sizes, *data, "--lr-grid", "1e-4,1e-3", *shared)
    assert re.search(r"Learning rate 0\.0001 of 0\.0001, 0\.001|Learning rate 0\.001 of", shown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "fast"], "engine 'fast'"),
        (["--lr-grid", "1e-4;2"], "--lr-grid"),
        (["--lr-grid", "0"], "--lr-grid"),
        (["--policies-per-pass", "0"], "--policies-per-pass"),
        (["--json", "--csv"], "one of"),
        (["--name", "a/b"], "--name 'a/b'"),
        (["--show", "/nowhere"], "no folder /nowhere"),
    ],
)
def test_wrong_options_are_one_sentence(layerpick, options, message):
    with pytest.raises(LayerpickError, match=message):
        layerpick(*options)


def test_sparklines_span_their_limits():
    assert sparkline([0, 1], 0, 1) == "▁█"
    assert sparkline([], 0, 1) == ""
    assert sparkline([3, 3], 3, 3) == "▁▁"
    assert len(sparkline(list(range(100)), 0, 99)) == 20


def test_features_are_kept_beside_the_runs_and_measured_once(layerpick, tmp_path, capfd):
    from layerpick.calibration.sweeps.features import FEATURES_FILE, read_features
    from layerpick.calibration.sweeps.store import read_folder

    sizes = ["--steps", 1, "--prompts", 2, "--group-size", 4, "--heldout-prompts", 4]
    options = [*sizes, "--lr-grid", "1e-4", "--layers", "0,3", "--out", tmp_path]
    layerpick("--device", "cpu", *options, "--probes", "none")
    (folder,) = tmp_path.glob("*/math-grpo")
    assert read_features(folder) is None
    layerpick("--device", "cpu", *options, "--probes", "weights,gradient")
    table = read_features(folder)
    records = read_folder(folder)
    assert set(table.features) == set(table.costs) == {"weights", "gradient"}
    assert table.weights_hash == records[0].settings.weights_hash
    assert (table.family, table.layers, table.task) == ("qwen3", 6, "math")
    assert all(len(v) == 6 for each in table.features.values() for v in each.values())
    assert 0.3 < table.base_reward < 0.6 and table.rollouts.sampled_tokens > 500
    before = (folder / FEATURES_FILE).stat().st_mtime_ns
    layerpick("--device", "cpu", *options, "--probes", "gradient")
    assert (folder / FEATURES_FILE).stat().st_mtime_ns == before
    layerpick("--device", "cpu", *options, "--probes", "weights,hidden")
    more = read_features(folder)
    assert set(more.features) == set(more.costs) == {"weights", "gradient", "hidden"}
    assert all(more.features[probe] == values for probe, values in table.features.items())
    (folder / FEATURES_FILE).write_text("{}")
    with pytest.raises(LayerpickError, match="a table of features"):
        layerpick("--device", "cpu", *options, "--probes", "gradient")
