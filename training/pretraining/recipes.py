"""How each built-in reference model is made: sizes, demonstrations, training, and its task.

Every reference folder holds a model, its tokenizer, `task.json` with the task that it is to be
improved on, and the task's own data where it has some.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layerpick.training.pretraining import arithmetic, programs
from layerpick.training.pretraining.architecture import Architecture
from layerpick.training.pretraining.pretrain import (
    Corpus,
    Pretrained,
    PretrainSettings,
    pretrain,
)

REFERENCE = Architecture("qwen3", layers=6, width=96, heads=4, kv_heads=2, feed_forward=256)
"""About 635,000 parameters: 2.5 MB in float32."""


@dataclass(frozen=True)
class Recipe:
    """One built-in model."""

    about: str
    corpus: Corpus
    settings: PretrainSettings
    task: Mapping[str, Any]
    """What `task.json` says: the task's name, its settings, and how to sample."""
    data: Callable[[], Mapping[str, str]] = dict
    """Further files of the folder, name → text."""
    architecture: Architecture = REFERENCE

    def make(self, folder: Path, seed: int, report: Callable[[int, float], None]) -> Pretrained:
        """Train the model from a seed and write its folder."""
        trained = pretrain(
            self.architecture, self.corpus, replace(self.settings, seed=seed), report
        )
        trained.save(folder, {"task.json": json.dumps(self.task, indent=2) + "\n", **self.data()})
        return trained


def _program_rows() -> dict[str, str]:
    rows = programs.rows(1500, random.Random(0))
    return {"programs.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}


SUMS = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1}

RECIPES: Mapping[str, Recipe] = {
    "math": Recipe(
        about="sums of two or three digits; half of the demonstrations have a wrong answer",
        corpus=arithmetic.noisy_sums(wrong=0.5, **SUMS),
        settings=PretrainSettings(steps=1000, batch_size=160),
        task={
            "task": "math",
            "dataset": "reasoning-gym:chain_sum?" + "&".join(f"{k}={v}" for k, v in SUMS.items()),
            "template": arithmetic.PROMPT,
            "stop": ["\n"],
            "max_new_tokens": 8,
            "temperature": 1.0,
        },
    ),
    "code": Recipe(
        about="one-line programs of two or three steps; three demonstrated steps in ten are wrong",
        corpus=programs.noisy_programs(wrong=0.3),
        settings=PretrainSettings(steps=800, batch_size=48),
        task={
            "task": "code",
            "dataset": "programs.jsonl",
            "stop": ["\n"],
            "max_new_tokens": 40,
            "temperature": 1.0,
        },
        data=_program_rows,
    ),
}
