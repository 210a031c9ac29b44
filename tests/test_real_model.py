"""SmolLM2-135M, on real rows and on generated ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from layerpick import suggest
from layerpick.selector.progress import Silent
from layerpick.selector.rollouts.run import ShownRollouts, rollouts
from layerpick.selector.settings import ModelChoice, RolloutChoice, SamplingChoice
from layerpick.training.episodes.play import Stops
from layerpick.training.errors import NoSignalError
from layerpick.training.models.loading import load_model
from layerpick.training.sandbox import sandbox_available
from layerpick.training.tasks.base import TaskSettings

DATA = Path(__file__).parent / "data"
SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"
pytestmark = pytest.mark.real


def test_the_gguf_file_is_converted_once_and_writes_sense(smollm2):
    import torch

    model = load_model(smollm2, dtype="float32")
    assert len(model.layers) == 30 and model.dtype == torch.float32
    assert load_model(smollm2).identity.weights_hash == model.identity.weights_hash
    ids = model.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = int(model.model(input_ids=ids).logits[0, -1].argmax())
    assert model.tokenizer.decode(best).strip() == "Paris"


def show(model: str, **settings) -> ShownRollouts:
    """A few short completions of SVAMP's rows."""
    return rollouts(
        ModelChoice(model),
        "math",
        settings=TaskSettings(dataset=str(DATA / "svamp.json"), **settings),
        sampling=SamplingChoice(max_new_tokens=12),
        prompts=1,
        samples=2,
        saved=None,
        seed=0,
        reporter=Silent(),
    )


STEPS = "Please reason step by step, and put your final answer within \\boxed{}."


def test_a_chat_model_is_asked_in_its_chat_template(smollm2):
    """The conversion of a GGUF file keeps the chat template and the token that ends a turn."""
    shown = show(smollm2)
    for each in shown.rollouts:
        assert each.prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named")
        assert each.prompt.endswith(f"{STEPS}<|im_end|>\n<|im_start|>assistant\n")
    model = load_model(smollm2)
    assert model.tokenizer.convert_tokens_to_ids("<|im_end|>") in Stops(model, ()).end_tokens


@pytest.mark.slow
def test_a_base_model_is_asked_in_the_plain_form(gemma3):
    shown = show(gemma3)
    for each in shown.rollouts:
        assert each.prompt.startswith("<bos>Question: ")
        assert each.prompt.endswith(f"\n{STEPS}\nAnswer:")
    assert "stopped by 'Question:'" in shown.task.prompt_form


def test_suggest_on_single_digit_sums(smollm2):
    suggestion = suggest(
        smollm2,
        settings=TaskSettings(
            dataset=SUMS, template="3 + 5 = 8\n7 - 2 = 5\n{expression} =", stop=("\n",)
        ),
        rollouts=RolloutChoice(prompts=8, group_size=4),
        sampling=SamplingChoice(max_new_tokens=6),
        probes=["gradient"],
    )
    assert len(suggestion.layers) == 30
    assert 0.2 < suggestion.rollouts.mean_reward < 0.9
    values = np.array([list(layer.features.values()) for layer in suggestion.layers])
    assert np.isfinite(values).all()


def test_suggest_on_real_questions(smollm2):
    """SVAMP is hard for so small a model: either there is signal, or it says that there is none."""
    settings = TaskSettings(
        dataset=str(DATA / "svamp.json"),
        template="Question: {prompt}\nAnswer with one number.\nAnswer:",
        stop=("\n",),
    )
    try:
        suggestion = suggest(
            smollm2,
            settings=settings,
            rollouts=RolloutChoice(prompts=6, group_size=4),
            sampling=SamplingChoice(max_new_tokens=10),
            probes=["gradient"],
        )
    except NoSignalError as error:
        assert "mean reward" in str(error)
    else:
        assert suggestion.rollouts.groups_with_signal >= 1
        assert suggestion.task.source.endswith("svamp.json")


@pytest.mark.skipif(not sandbox_available(), reason="no bubblewrap here")
def test_suggest_on_small_programs(smollm2, tmp_path):
    """Shown two programs, it writes a third; the sandbox runs it."""
    lines = [
        {
            "prompt": f"def f(x):  # {word} {n}\n    return",
            "tests": [f"assert f({x}) == {x + sign * n}" for x in (1, 7)],
            "entry_point": "f",
        }
        for word, sign in (("add", 1), ("take away", -1))
        for n in range(2, 9)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = (
        "def f(x):  # take away 1\n    return x - 1\n\n"
        "def f(x):  # add 9\n    return x + 9\n\n{prompt}"
    )
    suggestion = suggest(
        smollm2,
        "code",
        settings=TaskSettings(dataset=str(path), template=shown, stop=("\n",)),
        rollouts=RolloutChoice(prompts=6, group_size=4),
        sampling=SamplingChoice(max_new_tokens=10),
        probes=["gradient"],
    )
    assert suggestion.rollouts.groups_with_signal >= 1
    assert 0 < suggestion.rollouts.mean_reward < 1


def test_suggest_on_a_frozen_lake(smollm2):
    """As a chat over two turns; whatever it says, episodes go on and differ in reward."""
    suggestion = suggest(
        smollm2,
        "agentic",
        settings=TaskSettings(env="FrozenLake-v1?is_slippery=false", max_turns=2),
        rollouts=RolloutChoice(prompts=2, group_size=3),
        sampling=SamplingChoice(max_new_tokens=5),
        probes=["gradient"],
    )
    assert suggestion.task.algorithm == "gigpo"
    assert suggestion.rollouts.failures == 0
    assert suggestion.rollouts.groups_with_signal >= 1
