"""A run that is killed and started again ends where it would have ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from layerpick.training.engine import run as own
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import load_model
from layerpick.training.runs.checkpoint import latest_checkpoint
from layerpick.training.runs.folder import DELTA_FILE, RunFolder
from layerpick.training.trl.run import TrlSettings, train

SETTINGS = {
    train: TrlSettings(
        layers=(1,),
        learning_rate=1e-3,
        seed=5,
        checkpoint_every=2,
        trl={"lr_scheduler_type": "cosine", "warmup_steps": 3, "weight_decay": 0.01},
    ),
    own.train: own.OwnSettings(layers=(1, 2), learning_rate=1e-3, seed=5, checkpoint_every=2),
}
STEPS = 32


def run(model_folder: str, make_bench, engine, folder: Path) -> None:
    """What the same command would do."""
    bench = make_bench(load_model(model_folder, device="cpu"), steps=STEPS, beta=0.01)
    run_folder = RunFolder(folder)
    run_folder.open(SETTINGS[engine].describe(bench))
    engine(bench, SETTINGS[engine], run_folder)


@pytest.fixture(params=SETTINGS, ids=["trl", "own"])
def start(request, tiny, make_bench):
    """`start(folder)` runs in a process of its own, which can be killed."""
    model_folder = str(tiny("qwen3").folder)
    context = multiprocessing.get_context("fork")

    def begin(folder: Path):
        process = context.Process(
            target=run, args=(model_folder, make_bench, request.param, folder)
        )
        process.start()
        return process

    return begin


def step_reached(folder: Path) -> int:
    checkpoint = latest_checkpoint(folder)
    return checkpoint.step if checkpoint else 0


def wait_to_kill(process, folder: Path, seconds: float, at_least: int, at_most: int) -> None:
    """Wait for a moment by the clock, but inside a window of steps, however fast the machine."""
    end = time.monotonic() + seconds
    while process.is_alive() and (step := step_reached(folder)) < at_most:
        if step >= at_least and time.monotonic() >= end:
            return
        time.sleep(0.005)


def test_ten_kills_at_random_moments_change_no_bit(start, tmp_path):
    begun = time.monotonic()
    process = start(tmp_path / "whole")
    process.join()
    assert process.exitcode == 0
    duration = time.monotonic() - begun
    dice, steps_seen = random.Random(0), {0}
    for kill in range(10):
        process = start(tmp_path / "killed")
        at_least = max(steps_seen) + 2 if kill in (2, 5, 8) else 0
        seconds = dice.uniform(0, duration / 10)
        wait_to_kill(process, tmp_path / "killed", seconds, at_least, 2 * (kill + 1))
        assert process.exitcode is None, "it ended before it was killed ten times"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        steps_seen.add(step_reached(tmp_path / "killed"))
    process = start(tmp_path / "killed")
    process.join()
    assert process.exitcode == 0
    assert len(steps_seen) > 1, "it was never killed half way"
    whole = load_file(tmp_path / "whole" / DELTA_FILE)
    resumed = load_file(tmp_path / "killed" / DELTA_FILE)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    metrics = [RunFolder(tmp_path / name).metrics() for name in ("whole", "killed")]
    for first, second in zip(*metrics, strict=True):
        assert first.step == second.step
        assert first.values["reward"] == second.values["reward"]
        assert first.values["learning_rate"] == second.values["learning_rate"]
    assert not [path for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")]


def test_a_checkpoint_holds_only_what_is_trained(tiny, make_bench, tmp_path):
    model = tiny("llama")
    bench = make_bench(model, steps=2)
    train(bench, TrlSettings((1,), 1e-3), RunFolder(tmp_path))
    folder = latest_checkpoint(tmp_path).folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "trained.safetensors",
        "optimizer.safetensors",
        "trainer_state.json",
    }
    trained = load_file(folder / "trained.safetensors")
    assert {n: t.shape for n, t in trained.items()} == {
        model.layers.prefix(1) + n: p.shape for n, p in model.layers[1].named_parameters()
    }
    moments = load_file(folder / "optimizer.safetensors")
    assert sum(t.numel() for n, t in moments.items() if n.endswith("exp_avg")) == sum(
        t.numel() for t in trained.values()
    )


def test_a_folder_goes_on_with_its_own_settings_only(tiny, make_bench, tmp_path):
    bench = make_bench(tiny("llama"), steps=2)
    folder = RunFolder(tmp_path)
    folder.open(TrlSettings((1,), 1e-3).describe(bench))
    folder.open(TrlSettings((1,), 1e-3, report_to=("tensorboard",)).describe(bench))
    with pytest.raises(LayerpickError, match=r"layers = \[1\], not \[2\].*another --out"):
        folder.open(TrlSettings((2,), 1e-3).describe(bench))
    with pytest.raises(LayerpickError, match=r"steps = 2, not 4"):
        folder.open(TrlSettings((1,), 1e-3).describe(make_bench(tiny("llama"), steps=4)))


def test_a_run_that_is_done_is_not_run_again(tiny, make_bench, tmp_path):
    first, again = tiny("llama"), tiny("llama")
    train(make_bench(first, steps=2), TrlSettings((1,), 1e-3), RunFolder(tmp_path))
    bench = make_bench(again, steps=2)
    bench.task.rewards = None  # would fail if it were asked
    train(bench, TrlSettings((1,), 1e-3), RunFolder(tmp_path))
    assert all(map(torch.equal, first.layers[1].parameters(), again.layers[1].parameters()))


def test_a_line_cut_short_by_a_kill_is_forgotten(tiny, make_bench, tmp_path):
    folder = RunFolder(tmp_path)
    train(make_bench(tiny("llama"), steps=2), TrlSettings((1,), 1e-3), folder)
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text() + file.read_text().splitlines()[0][:40])
    assert [step.step for step in folder.metrics()] == [1, 2]
    folder.begin(1)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1]
