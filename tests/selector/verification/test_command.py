"""`layerpick train`, `verify`, `apply` and `auto`, from typed commands to files."""

from __future__ import annotations

import json
import sys

import pytest
import typer

from layerpick.selector.auto import command as auto_command
from layerpick.selector.training_run import command as train_command
from layerpick.selector.verification import command as verify_command
from layerpick.training.errors import LayerpickError
from layerpick.training.runs.folder import RunFolder
from layerpick.training.tasks.base import TaskSettings


@pytest.fixture
def layerpick(monkeypatch, capsys):
    """Run a command as typed; returns its stdout."""
    app = typer.Typer()
    for name, command in (
        ("train", train_command.train),
        ("apply", train_command.apply),
        ("verify", verify_command.verify),
        ("auto", auto_command.auto),
    ):
        app.command(name)(command)

    def call(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["layerpick", *map(str, arguments)])
        app(standalone_mode=False)
        return capsys.readouterr().out

    return call


@pytest.fixture
def small(settings: TaskSettings) -> list[str]:
    """Options of a run that takes a second."""
    return [
        *("--dataset", settings.dataset, "--template", settings.template),
        *("--reward", settings.reward, "--prompts", "4", "--group-size", "4", "--steps", "2"),
        *("--max-new-tokens", "5", "--heldout-prompts", "6", "--heldout-samples", "2"),
    ]


def test_train_verify_apply(tiny, small, layerpick, tmp_path):
    model, one, full = tiny("qwen3").folder, tmp_path / "one", tmp_path / "full"
    out = layerpick("train", model, "--layer", "1", "--out", one, *small)
    assert "Trained layer 1" in out and "s sampling" in out and "optimizer state" in out
    layerpick("train", model, "--layer", "all", "--out", full, *small)
    assert (
        RunFolder(full).result().cost.trainable_parameters
        == RunFolder(full).result().full_parameters
    )
    assert not list(one.glob("checkpoint-*"))
    again = json.loads(layerpick("train", model, "--layer", "1", "--out", one, "--json", *small))
    assert again == json.loads((one / "result.json").read_text())
    with pytest.raises(LayerpickError, match=r"layers = \[1\], not \[2\]"):
        layerpick("train", model, "--layer", "2", "--out", one, *small)
    found = json.loads(layerpick("verify", one, "--full", full, "--json"))
    assert found["picked"] == "layer 1"
    assert found["full"]["mean"] == RunFolder(full).result().trained.mean
    assert {"verification.json", "verification.png"} <= {path.name for path in one.iterdir()}
    layerpick("apply", one, "--out", tmp_path / "merged")
    card = (tmp_path / "merged" / "README.md").read_text()
    assert f"| this model | {RunFolder(one).result().trained.mean:.4f} |" in card


def test_auto_goes_all_the_way(tiny, small, layerpick, tmp_path):
    place = tmp_path / "auto"
    command = ["auto", tiny("llama").folder, "--with-full", "--out", place, *small]
    out = layerpick(*command)
    pick = json.loads((place / "suggestion.json").read_text())["pick"]
    assert RunFolder(place / "layer").description().layers == (pick,)
    assert RunFolder(place / "full").description().layers is None
    last = out.strip().splitlines()[-1]
    assert last.startswith(f"Training layer {pick} of 3 alone")
    assert "of the update time and" in last
    headline = json.loads(layerpick(*command, "--json"))["headline"]  # nothing is run again
    assert headline == last
