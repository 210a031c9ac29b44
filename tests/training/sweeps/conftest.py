"""What sweeps of tiny models are measured on."""

from __future__ import annotations

import pytest

from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.episodes.play import SamplingSettings
from layerpick.training.episodes.scoring import held_out
from layerpick.training.settings import RlSettings
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.tasks.settings import TaskSettings
from layerpick.training.tasks.table import make_task

SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"


@pytest.fixture
def bench(tiny, tmp_path):
    """A tiny model whose reward is easily raised: it should write early letters."""
    reward = tmp_path / "reward.py"
    reward.write_text(
        "def early(completions, **columns):\n"
        "    return [sum(ord(c) < 100 for c in text) / (len(text) + 1) for text in completions]\n"
    )
    settings = TaskSettings(dataset=SUMS, template="{expression} =", reward=f"{reward}:early")
    task = make_task("math", settings)
    return Bench(
        model=tiny("qwen3"),
        task=task,
        algorithm=make_algorithm("grpo"),
        sampling=SamplingSettings(4, rows=1000),
        settings=RlSettings(steps=4, prompts=4, group_size=4),
        heldout=held_out(task, 16, 2),
        learning_rates=(1e-4, 3e-3),
    )
