"""How each built-in reference model is made: sizes, demonstrations, training, and its task.

A reference folder holds a model, its tokenizer, a model card, `task.json` with the task that it
is to be improved on, and the task's own data where it has some.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layerpick.training.pretraining import arithmetic, programs, worlds
from layerpick.training.pretraining.architecture import Architecture
from layerpick.training.pretraining.pretrain import (
    Corpus,
    Pretrained,
    PretrainSettings,
    pretrain,
)

CARD = """---
license: apache-2.0
library_name: transformers
---
# {title}

{layers} decoder layers of width {width} ({family} architecture), trained from
scratch on {about}. It is meant for {purpose}, and for nothing else.

    {command}

makes it again, from seed {seed}, in a few minutes on one CPU core.
"""


@dataclass(frozen=True)
class Recipe:
    """One small model."""

    name: str
    about: str
    """What the demonstrations are and how they are wrong: the middle of a sentence."""
    architecture: Architecture
    corpus: Corpus
    settings: PretrainSettings
    task: Mapping[str, Any]
    """`task.json`: the task, its settings, and how to sample."""
    data: Callable[[], Mapping[str, str]] = dict
    """Further files of the folder, name → text."""
    title: str = "The built-in {name} model of layerpick"
    purpose: str = "trying layerpick out"
    command: str = "python -m layerpick.training.pretraining {name} --out {name}"

    def make(
        self,
        folder: Path,
        seed: int = 0,
        report: Callable[[int, float], None] = lambda _step, _loss: None,
    ) -> Pretrained:
        """Train the model from a seed and write its folder."""
        settings = replace(self.settings, seed=seed)
        trained = pretrain(self.architecture, self.corpus, settings, report)
        trained.save(folder, self.texts(seed))
        return trained

    def texts(self, seed: int = 0) -> dict[str, str]:
        """All files of the folder but the model's own, name → text."""
        card = CARD.format(
            title=self.title.format(name=self.name),
            purpose=self.purpose,
            command=self.command.format(name=self.name),
            about=self.about,
            seed=seed,
            **vars(self.architecture),
        )
        return {
            "README.md": card,
            "task.json": json.dumps(self.task, indent=2) + "\n",
            **self.data(),
        }


def program_rows() -> dict[str, str]:
    """The code models' data: 1,500 programs in `programs.jsonl`."""
    rows = programs.rows(1500, random.Random(1))
    return {"programs.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}


SUMS = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1}
LAKE = "FrozenLake-v1?is_slippery=false&size=3&p=0.7"
LARGE = Architecture("qwen3", 6, 96, 4, 256, 2, initializer_range=0.1)
"""634,560 parameters: 2.5 MB in float32."""

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="math",
            about="sums of two or three one-digit numbers; half of the demonstrations are wrong",
            architecture=LARGE,
            corpus=arithmetic.noisy_sums(0.5, **SUMS),
            settings=PretrainSettings(steps=700),
            task={
                "task": "math",
                "dataset": "reasoning-gym:chain_sum?"
                + "&".join(f"{option}={value}" for option, value in SUMS.items()),
                "template": arithmetic.PROMPT,
                "stop": ["\n"],
                "max_new_tokens": 5,
                "learning_rate": 2e-4,
            },
        ),
        Recipe(
            name="code",
            about="one-line functions of two or three steps; three steps in ten are another one",
            architecture=LARGE,
            corpus=programs.noisy_programs(0.3),
            settings=PretrainSettings(steps=800, batch_size=48),
            task={
                "task": "code",
                "dataset": "programs.jsonl",
                "stop": ["\n"],
                "max_new_tokens": 32,
                "learning_rate": 5e-4,
            },
            data=program_rows,
        ),
        Recipe(
            name="agentic",
            about="small frozen lakes crossed by a guide six of whose ten steps are random",
            architecture=Architecture("qwen3", 5, 64, 4, 160, 2, max_length=192),
            corpus=worlds.clumsy_walks(LAKE, 0.6),
            settings=PretrainSettings(steps=1000, batch_size=32),
            task={
                "task": "agentic",
                "env": LAKE,
                "template": "{prompt}",
                "stop": ["\n"],
                "max_new_tokens": 7,
                "learning_rate": 5e-4,
            },
        ),
    )
}
