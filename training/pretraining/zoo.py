"""The zoo: small models made from a seed, so that *where* RL helps differs between them.

A predictor learns from measured sweeps, and a sweep takes as many RL runs as a model has layers:
on models of a few hundred thousand parameters that is a matter of minutes. The models differ in
family, depth and width, in what they are asked, and in what RL has to mend.

Limits: they read and write single bytes and know one task each.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from layerpick.training.pretraining import programs, worlds
from layerpick.training.pretraining.architecture import Architecture
from layerpick.training.pretraining.exercises import (
    Skill,
    edits,
    recall,
    reversal,
    rows,
    sorting,
    sums,
)
from layerpick.training.pretraining.flaws import (
    confused,
    demonstrations,
    habitual,
    mostly,
    noisy,
    rarely_in_form,
    rarely_working,
)
from layerpick.training.pretraining.pretrain import Corpus, PretrainSettings
from layerpick.training.pretraining.recipes import LAKE, Recipe, program_rows

SWEEP_STEPS = 60
"""RL steps of every run of the shipped sweeps."""
QUESTIONS = 1500
"""Rows of a task's data; a fifth of them is held out."""


@dataclass(frozen=True)
class ZooModel:
    """One model of the zoo, and what a list says of it."""

    recipe: Recipe
    skill: str
    """What it is asked."""
    gain: str
    """What RL has to mend."""
    algorithms: tuple[str, ...]
    """Those it is swept with."""


def _shape(family: str, layers: int, width: int, max_length: int = 64) -> Architecture:
    kv_heads = None if family in ("gpt2", "gpt_neox") else 2
    return Architecture(
        family, layers, width, 4, 5 * width // 2, kv_heads, max_length, initializer_range=0.1
    )


def _model(
    shape: Architecture,
    skill: str,
    gain: str,
    corpus: Corpus,
    settings: PretrainSettings,
    task: Mapping[str, Any],
    algorithms: tuple[str, ...],
    data: Callable[[], Mapping[str, str]] = dict,
) -> ZooModel:
    recipe = Recipe(
        name=f"{shape.family}-{shape.layers}-{skill}-{gain}",
        about=f"demonstrations of the skill '{skill}'; what RL has to mend is '{gain}'",
        architecture=shape,
        corpus=corpus,
        settings=settings,
        task={**task, "stop": ["\n"]},
        data=data,
        title="{name}, a model of layerpick's zoo",
        purpose="measuring where reinforcement learning helps",
        command="layerpick zoo build {name}",
    )
    return ZooModel(recipe, skill, gain, algorithms)


def _exercise(
    shape: Architecture,
    skill: tuple[str, Skill],
    gain: tuple[str, Corpus],
    steps: int,
    max_new_tokens: int,
    algorithms: tuple[str, ...] = ("grpo", "dr_grpo"),
) -> ZooModel:
    """A model that answers exercises; its task is math."""
    task = {"task": "math", "dataset": "exercises.jsonl", "max_new_tokens": max_new_tokens}
    settings = PretrainSettings(steps=steps, batch_size=128)
    data = partial(_questions, skill[1])
    return _model(shape, skill[0], *gain, settings, task, algorithms, data)


def _questions(skill: Skill) -> dict[str, str]:
    drawn = rows(skill, QUESTIONS, random.Random(1))
    return {"exercises.jsonl": "".join(json.dumps(row) + "\n" for row in drawn)}


def _noise(skill: Skill, wrong: float = 0.5) -> tuple[str, Corpus]:
    return "noise", demonstrations(skill, noisy(wrong))


def _strategy(skill: Skill, shown: float = 0.25, wrong: float = 0.7) -> tuple[str, Corpus]:
    return "strategy", demonstrations(skill, rarely_working(shown, wrong))


def _form(skill: Skill, right: float = 0.3, wrong: float = 0.2) -> tuple[str, Corpus]:
    return "form", demonstrations(skill, rarely_in_form(right, wrong))


def _habit(skill: Skill, share: float = 0.65) -> tuple[str, Corpus]:
    return "habit", demonstrations(skill, habitual(share))


def _transfer(
    easier: Skill, harder: Skill, hard: float = 0.02, wrong: float = 0.1
) -> tuple[str, Corpus]:
    return "transfer", demonstrations(mostly(easier, harder, hard), noisy(wrong))


def _confusion(skill: Skill, pair: str) -> tuple[str, Corpus]:
    return "confusion", confused(skill, pair, 0.42)


def _sorting_and_reversal(generator: random.Random) -> Any:
    return (sorting(4) if generator.random() < 0.5 else reversal(4))(generator)


def _exercises() -> tuple[ZooModel, ...]:
    sum3, sum4, sort5 = ("sum", sums(3)), ("sum", sums(4)), ("sort", sorting(5))
    reverse5, reverse6, edit5 = (
        ("reverse", reversal(5)),
        ("reverse", reversal(6)),
        ("edit", edits(5)),
    )
    recall3, order4 = ("recall", recall(3)), ("order", _sorting_and_reversal)
    return (
        _exercise(_shape("qwen2", 6, 64), sum3, _noise(sum3[1]), 700, 5),
        _exercise(_shape("llama", 8, 64), sum4, _strategy(sum4[1]), 900, 18),
        _exercise(_shape("gpt2", 8, 64), sort5, _noise(sort5[1]), 700, 8),
        _exercise(_shape("gemma3", 4, 64), reverse6, _form(reverse6[1]), 600, 9),
        _exercise(_shape("gpt_neox", 6, 64), edit5, _habit(edit5[1]), 800, 8),
        _exercise(_shape("llama", 6, 64), order4, _confusion(order4[1], "<>"), 900, 7),
        _exercise(_shape("gpt2", 12, 48), sum3, _habit(sum3[1]), 800, 6),
        _exercise(_shape("qwen3", 8, 64), reverse5, _noise(reverse5[1]), 600, 8),
        _exercise(_shape("llama", 4, 64), edit5, _noise(edit5[1]), 600, 8),
        _exercise(_shape("gemma3", 6, 64), sum3, _noise(sum3[1]), 700, 5),
        _exercise(_shape("gpt_neox", 8, 64), reverse5, _noise(reverse5[1]), 700, 8),
        _exercise(_shape("gpt2", 6, 64), edit5, _noise(edit5[1], 0.6), 700, 8),
        _exercise(_shape("qwen2", 10, 48), sort5, _noise(sort5[1]), 700, 8),
        _exercise(_shape("qwen2", 4, 64), reverse6, _transfer(reversal(4), reverse6[1]), 700, 9),
        _exercise(_shape("qwen3", 6, 64), recall3, _noise(recall3[1]), 1000, 4),
        _exercise(_shape("llama", 5, 64), sum3, _strategy(sum3[1], 0.2), 800, 14),
    )


def _others() -> tuple[ZooModel, ...]:
    """Programs, and worlds over several turns."""
    code = {"task": "code", "dataset": "programs.jsonl", "max_new_tokens": 32}
    lake = {"task": "agentic", "env": LAKE, "template": "{prompt}", "max_new_tokens": 7}
    return (
        _model(
            _shape("llama", 5, 64, 96),
            "program",
            "noise",
            programs.noisy_programs(0.3),
            PretrainSettings(steps=1000, batch_size=48),
            code,
            ("grpo",),
            program_rows,
        ),
        _model(
            _shape("gpt2", 6, 64, 192),
            "lake",
            "noise",
            worlds.clumsy_walks(LAKE, 0.6),
            PretrainSettings(steps=1000, batch_size=32),
            lake,
            ("gigpo", "grpo"),
        ),
    )


ZOO: Mapping[str, ZooModel] = {model.recipe.name: model for model in (*_exercises(), *_others())}
