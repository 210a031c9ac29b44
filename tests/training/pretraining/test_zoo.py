"""The zoo's models differ, fit their texts, and can be built and swept."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice

import pytest

from layerpick.training.pretraining.names import ZOO_NAMES
from layerpick.training.pretraining.pretrain import PretrainSettings, encode, pretrain
from layerpick.training.pretraining.tokenizer import byte_tokenizer
from layerpick.training.pretraining.zoo import ZOO


def test_names_are_known_without_the_recipes():
    assert set(ZOO) == ZOO_NAMES


def test_families_depths_and_gains_differ():
    shapes = [model.recipe.architecture for model in ZOO.values()]
    assert {shape.family for shape in shapes} == {
        "qwen3",
        "qwen2",
        "llama",
        "gpt2",
        "gemma3",
        "gpt_neox",
    }
    assert min(shape.layers for shape in shapes) == 4
    assert max(shape.layers for shape in shapes) == 12
    gains = Counter(model.gain for model in ZOO.values())
    assert set(gains) == {"noise", "strategy", "form", "transfer", "habit", "confusion"}
    assert {model.recipe.task["task"] for model in ZOO.values()} == {"math", "code", "agentic"}


@pytest.mark.parametrize("name", ZOO)
def test_a_model_can_read_its_own_texts(name):
    recipe = ZOO[name].recipe
    longest = recipe.architecture.max_length
    documents = tuple(islice(recipe.corpus(random.Random(0)), 200))
    tokens, _ = encode(documents, byte_tokenizer(longest), learn_prompts=False)
    prompts = [len(document[0]) for document in documents]
    turns = longest if recipe.task["task"] == "agentic" else max(prompts)
    assert tokens.shape[1] <= longest and turns <= longest
    if recipe.task["task"] == "math":
        answers = [len(document[1].encode()) for document in documents]
        assert max(answers) <= recipe.task["max_new_tokens"]


@pytest.mark.parametrize("name", [n for n, m in ZOO.items() if m.recipe.task["task"] == "math"])
def test_demonstrations_and_questions_are_of_one_kind(name):
    recipe = ZOO[name].recipe
    asked = [json.loads(line) for line in recipe.data()["exercises.jsonl"].splitlines()]
    assert len(asked) == 1500

    def form(text: str) -> str:
        return "".join("9" if c.isdigit() else "a" if c.isalpha() else c for c in text)

    shown = {form(prompt) for prompt, _ in islice(recipe.corpus(random.Random(0)), 3000)}
    forms = Counter(form(row["prompt"]) for row in asked)
    assert sum(count for text, count in forms.items() if text in shown) > 1400


def test_a_model_of_the_zoo_learns():
    recipe = ZOO["qwen2-4-reverse-transfer"].recipe
    trained = pretrain(recipe.architecture, recipe.corpus, PretrainSettings(20, batch_size=32))
    assert trained.losses[-1] < 0.8 * trained.losses[0]
