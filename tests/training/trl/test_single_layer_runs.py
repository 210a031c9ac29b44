"""Whole runs: a real model in little memory, and what one layer gains on the built-in models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from layerpick.selector.prepare import prepare
from layerpick.selector.progress import Silent
from layerpick.selector.settings import (
    TRAINING_SAMPLING,
    HeldOutChoice,
    ModelChoice,
    RlSettings,
    TaskSettings,
)
from layerpick.selector.training_run.report import gain_error
from layerpick.selector.training_run.run import make_bench, run_training
from layerpick.selector.training_run.settings import TrainingChoice
from layerpick.selector.training_run.strategy import Strategy
from layerpick.training.runs.folder import RunFolder

REAL_RUN = """
import resource, sys
from layerpick.selector.prepare import prepare
from layerpick.selector.progress import Silent
from layerpick.selector.settings import *
from layerpick.selector.training_run.run import make_bench, run_training
from layerpick.selector.training_run.settings import TrainingChoice
from layerpick.selector.training_run.strategy import Strategy
from pathlib import Path

model, rows, reward, out = sys.argv[1:]
settings = TaskSettings(dataset=rows, reward=reward)
sampling = SamplingChoice(max_new_tokens=12)
prepared = prepare(ModelChoice(model, device="cpu"), "math", settings, sampling)
rl = RlSettings(steps=3, prompts=2, group_size=2)
bench = make_bench(prepared, None, rl, HeldOutChoice(2, 1))
run_training(bench, Strategy((15,), None, "by hand"), TrainingChoice(), 0, Path(out), Silent())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.real
def test_smollm2_trains_one_layer_in_four_gigabytes(smollm2, tmp_path):
    reward = tmp_path / "digits.py"
    reward.write_text(
        "def share(completions, **_):\n"
        "    return [sum(c.isdigit() for c in t) / (len(t) + 1) for t in completions]\n"
    )
    rows = Path(__file__).parents[2] / "data" / "gsm8k.jsonl"
    command = [sys.executable, "-c", REAL_RUN, smollm2, str(rows), f"{reward}:share", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1]) < 4e9
    folder = RunFolder(tmp_path / "run")
    assert [step.step for step in folder.metrics()] == [1, 2, 3]
    assert folder.result().cost.trainable_parameters == 3_540_096


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "algorithm", "layer"),
    [("math", "grpo", 4), ("math", "dr_grpo", 4), ("code", "grpo", 4), ("agentic", "gigpo", 4)],
)
def test_one_layer_lifts_the_score_of_the_built_in_model(task, algorithm, layer, tmp_path):
    prepared = prepare(ModelChoice(device="cpu"), task, TaskSettings(), TRAINING_SAMPLING)
    bench = make_bench(prepared, algorithm, RlSettings(), HeldOutChoice(128))
    result = run_training(
        bench, Strategy((layer,), None, "by hand"), TrainingChoice(), 0, tmp_path / "run", Silent()
    ).result
    gain = result.trained.mean - result.base.mean
    assert gain >= 0.1
    assert gain > 3 * gain_error(result.base, result.trained)
