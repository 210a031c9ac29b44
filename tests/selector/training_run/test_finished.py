"""A run counts as done as long as its trained layer is there, and whole."""

from __future__ import annotations

import pytest
import torch

import layerpick
from layerpick.selector.progress import Silent
from layerpick.selector.settings import HeldOutChoice, RlSettings
from layerpick.selector.training_run.settings import TrainingChoice
from layerpick.training.runs.delta import read_delta, save_delta
from layerpick.training.runs.folder import DELTA_FILE, RunFolder


class Listening(Silent):
    """Keeps what is noted."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(params=["trl", "own"])
def train(request, tiny, settings, short, tmp_path):
    """`train()`: the same command each time; returns the run and what was said."""

    def call():
        listening = Listening()
        run = layerpick.train(
            str(tiny("qwen3").folder),
            layer="1",
            settings=settings,
            sampling=short,
            rl=RlSettings(steps=1, prompts=4, group_size=4),
            heldout=HeldOutChoice(4, 2),
            choice=TrainingChoice(engine=request.param, learning_rate=1e-4),
            out=tmp_path / "run",
            reporter=listening,
        )
        return run, " ".join(listening.notes)

    return call


def delete(file):
    file.unlink()


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def replace(file):
    """A whole file, but another run's."""
    tensors, origin = read_delta(file)
    save_delta(file, {name: value + 1 for name, value in tensors.items()}, origin)


def test_a_run_that_lost_its_layer_is_trained_anew(train, tmp_path):
    run, _ = train()
    delta = tmp_path / "run" / DELTA_FILE
    before, _ = read_delta(delta)
    again, said = train()
    assert again.result == run.result and "nothing is trained again" in said
    for damage in (delete, cut, replace):
        damage(delta)
        anew, said = train()
        assert "has lost its trained layer, or it was damaged: trained anew" in said
        assert anew.result.cost.update_seconds != run.result.cost.update_seconds
        assert [step.step for step in RunFolder(tmp_path / "run").metrics()] == [1]
        after, _ = read_delta(delta)
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert anew.result.trained == run.result.trained
