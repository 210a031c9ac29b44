"""What is damaged, contradicts itself or belongs elsewhere is refused in one sentence."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.sweeps.store import read_folder
from layerpick.selector.app.app import run as layerpick
from layerpick.selector.verification.find import full_score
from layerpick.training.errors import LayerpickError
from layerpick.training.files import write_text, writing
from layerpick.training.models.choosing import choose_layers
from layerpick.training.models.defaults import read_defaults
from layerpick.training.runs.delta import DeltaOrigin, read_delta, save_delta, whole_checksum
from layerpick.training.runs.folder import DELTA_FILE, RunDescription, RunFolder, RunResult
from layerpick.training.tasks.rewards import call_reward
from layerpick.training.tasks.settings import TaskSettings
from layerpick.training.trl.options import parse_trl_options

ORIGIN = DeltaOrigin(
    base_model="m",
    revision=None,
    weights_hash="ab",
    dtype="float32",
    layers=(1,),
    algorithm="grpo",
    task="math",
    source="sums",
    steps=2,
    learning_rate=1e-4,
    seed=0,
)


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    """A trained layer's file."""
    path = tmp_path / DELTA_FILE
    save_delta(path, {"w": torch.randn(8, 8), "b": torch.zeros(8)}, ORIGIN)
    return path


def rewrite(path: Path, change: Any) -> None:
    """Change a safetensors file's tensors and keep its header."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(change(load_file(path)), path, header)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {**tensors, "w": tensors["w"] * float("nan")},
        lambda tensors: {**tensors, "w": tensors["w"] + 1e-3},
        lambda tensors: {"w": tensors["w"]},
        lambda tensors: {},
    ],
)
def test_a_changed_delta_is_refused(delta: Path, change: Any) -> None:
    assert set(read_delta(delta)[0]) == {"w", "b"}
    rewrite(delta, change)
    with pytest.raises(LayerpickError, match="checksum is wrong"):
        read_delta(delta)
    assert whole_checksum(delta.parent) is None


def test_every_byte_of_a_delta_counts(delta: Path) -> None:
    content = delta.read_bytes()
    for where in range(0, len(content), 37):
        delta.write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])
        with pytest.raises(LayerpickError, match=str(delta)):
            read_delta(delta)


def test_ruined_weights_are_not_saved(tmp_path: Path) -> None:
    ruined = {"w": torch.tensor([1.0, float("inf")])}
    with pytest.raises(LayerpickError, match=r"w holds values that are infinite.*learning-rate"):
        save_delta(tmp_path / DELTA_FILE, ruined, ORIGIN)
    assert not list(tmp_path.iterdir())


def test_files_have_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_delta(tmp_path / DELTA_FILE, {"w": torch.zeros(2)}, ORIGIN)
        write_text(tmp_path / "text", "x")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o644}


def test_a_full_disk_is_said_whoever_writes(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with (
        pytest.raises(LayerpickError, match=r"Cannot write /dev/full: No space left"),
        writing(full),
        full.open("wb", buffering=0) as file,
    ):
        file.write(b"x")
    with (
        pytest.raises(LayerpickError, match="Cannot write x: I/O error: No space left"),
        writing(Path("x")),
    ):
        raise SafetensorError("I/O error: No space left on device (os error 28)")


def description(layer: int) -> RunDescription:
    """Of a run of one layer."""
    settings = read_folder(SHIPPED_SWEEPS / "reference-math" / "math-grpo")[0].settings
    return RunDescription(
        settings=settings,
        layers=(layer,),
        learning_rate=1e-4,
        seed=0,
        micro_batch=None,
        gradient_checkpointing=False,
        vllm=None,
        trl={},
    )


def test_a_result_is_of_its_own_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(description(3))
    score = {"mean": 0.5, "error": 0.1, "by_prompt": (0.4, 0.6)}
    cost = {
        **{"steps": 1, "trainable_parameters": 1, "optimizer_bytes": 1},
        **{"sampling_seconds": 0.1, "update_seconds": 0.1, "tokens": 5},
    }
    result = RunResult.model_validate(
        {
            **{"cost": cost, "base": score, "trained": score, "full_parameters": 2},
            **{"device": "cpu", "versions": {}, "run": description(3).identity},
        }
    )
    folder.finish(result)
    assert folder.result() == result
    (tmp_path / "run.json").unlink()
    with pytest.raises(LayerpickError, match=r"result\.json belongs to a run that has lost its"):
        folder.open(description(0))
    write_text(tmp_path / "run.json", description(0).model_dump_json())
    with pytest.raises(LayerpickError, match="the result of another run"):
        folder.result()


def test_a_run_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).held(),
        pytest.raises(LayerpickError, match="Another process is training"),
        RunFolder(tmp_path).held(),
    ):
        pass
    with RunFolder(tmp_path).held():
        pass


@pytest.mark.parametrize(
    "change",
    [
        {"score": float("nan")},
        {"score": 1e308},
        {"seconds": float("inf")},
        {"prompt_scores": [0.5]},
        {"run": {"kind": "layer", "seed": 0, "learning_rate": 2e-4, "layer": -1}},
        {"run": {"kind": "layer", "seed": 0, "learning_rate": 2e-4, "layer": 6}},
        {"run": {"kind": "layer", "seed": 0, "learning_rate": 2e-4, "layer": None}},
        {"run": {"kind": "layer", "seed": 0, "learning_rate": 2e-4, "layer": 1}},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    shipped = SHIPPED_SWEEPS / "reference-math" / "math-grpo"
    (source,) = shipped.glob("layer002*-seed0.json")
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    read_folder(tmp_path)
    path.write_text(json.dumps({**json.loads(source.read_text()), **change}))
    with pytest.raises(LayerpickError, match=str(path)):
        read_folder(tmp_path)


def test_a_reward_that_exits_is_a_mistake() -> None:
    def leave(completions: list, **_: Any) -> list[float]:
        raise SystemExit(0)

    with pytest.raises(LayerpickError, match="'leave' raised SystemExit"):
        call_reward(leave, [], [])


@pytest.mark.parametrize("given", ["nan", "inf", "0.9,-1", "0.9,nan", "1,2,3", "1e400", ","])
def test_scores_are_numbers(given: str) -> None:
    with pytest.raises(LayerpickError, match="--full"):
        full_score(given)


@pytest.mark.parametrize("text", ["middle:0", "every:0", "", ",", "-1", "²", "9" * 5000, "1,"])
def test_layers_that_are_none(text: str) -> None:
    with pytest.raises(LayerpickError, match="--layers"):
        choose_layers(text, 6)


def test_a_model_cannot_ask_to_be_stopped_at_once(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text('{"task": "math", "stop": [""]}')
    with pytest.raises(LayerpickError, match=r"task\.json cannot be read.*stop"):
        read_defaults(tmp_path, "math")
    with pytest.raises(LayerpickError, match="--stop '' would end every completion"):
        TaskSettings(stop=("a", ""))


@pytest.mark.parametrize("option", ["deepspeed=x", "push_to_hub=true", "eval_strategy=steps"])
def test_what_trl_cannot_do_here(option: str) -> None:
    with pytest.raises(LayerpickError, match="is not possible"):
        parse_trl_options([option])


@pytest.mark.parametrize(
    "arguments",
    [
        ["suggest", "--prompts", "99999999999999999999"],
        ["train", "--seed", "4294967296"],
        ["train", "--learning-rate", "1e39"],
        ["train", "--learning-rate", "nan"],
        ["train", "--clip", "-1"],
        ["sweep", "--kl", "inf"],
        ["sweep", "--kl", "nan"],
        ["sweep", "--lr-grid", "nan"],
        ["sweep", "--lr-grid", "1e-4,inf"],
        ["sweep", "--temperature", "nan"],
        ["sweep", "--temperature", "inf"],
        ["sweep", "--policies-per-pass", "²"],
        ["suggest", "--stop", ""],
        ["train", "--stop", "x", "--stop", ""],
        ["suggest", "~nouser/x"],
        ["suggest", "no/such/[/red]"],
    ],
)
def test_options_out_of_range_end_before_anything_begins(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [] if arguments[1].startswith(("~", "no/")) else ["--out", str(tmp_path / "out")]
    assert layerpick([*arguments, *where]) == 2
    said = capsys.readouterr().err
    assert "Error: " in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
