"""A vote against one counted by hand."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from layerpick import load_with_delta
from layerpick.selector.app.app import app
from layerpick.training.runs.folder import RunFolder
from layerpick.training.tasks.math import MathTask
from layerpick.training.tasks.settings import TaskSettings


def layerpick(*arguments):
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if answer.exception is not None:
        raise answer.exception
    return answer


@pytest.fixture
def runs(tiny, settings, tmp_path):
    """Three runs of a tiny model, each with another layer trained, hard enough to differ."""
    rest = [
        *("--dataset", settings.dataset, "--template", settings.template),
        *("--reward", settings.reward, "--prompts", "4", "--group-size", "4"),
        *("--max-new-tokens", "3", "--steps", "2", "--heldout-prompts", "5"),
        *("--heldout-samples", "2", "--learning-rate", "1e-2"),
    ]
    folder = str(tiny("qwen3").folder)
    for layer in range(3):
        layerpick("train", folder, *rest, "--layer", layer, "--out", tmp_path / str(layer))
    return [tmp_path / str(layer) for layer in range(3)]


def options(settings):
    return ["--template", settings.template, "--reward", settings.reward]


def test_the_majority_counts(runs, settings):
    answer = layerpick("vote", *runs, *options(settings), "--json")
    found = json.loads(answer.stdout)
    # Each voter scores as its run did: it is the same model, with the same noise.
    for run, voter in zip(runs, found["voters"], strict=True):
        recorded = RunFolder(run).result().trained
        assert voter["score"]["by_prompt"] == pytest.approx(recorded.by_prompt)
    texts = [answers_of(run, settings) for run in runs]
    winning, agreement, unanimous = [], [], 0
    for ballot in zip(*texts, strict=True):
        counted = Counter(ballot)
        most = max(counted.values())
        first = next(text for text in ballot if counted[text] == most)
        winning.append(1.0 - len(first) % 2)  # the reward of this task: an even length
        agreement.append(most / 3)
        unanimous += most == 3
    scores = np.array(winning).reshape(5, 2).mean(axis=1)
    assert found["score"]["by_prompt"] == pytest.approx(scores)
    assert found["agreement"] == pytest.approx(np.mean(agreement))
    assert found["unanimous"] == pytest.approx(unanimous / 10)
    sizes = [voter["trained_parameters"] for voter in found["voters"]]
    assert found["stored_parameters"] == sum(sizes)


def answers_of(run, settings):
    """What the run's model writes to its held-out prompts, by loading it anew."""
    from layerpick.training.engine.loop import step_seed
    from layerpick.training.engine.policies import FIRST_LAYER_STREAM
    from layerpick.training.episodes.play import SamplingSettings, play
    from layerpick.training.episodes.scoring import held_out
    from layerpick.training.sweeps.multiplexed import SCORING_STEP

    model = load_with_delta(run, device="cpu")
    task = MathTask(settings)
    on = held_out(task, 5, 2)
    layer = RunFolder(run).description().layers[0]
    episodes = play(
        model, task, on.prompts, on.samples, SamplingSettings(3, temperature=1.0),
        seed=step_seed(0, SCORING_STEP), streams=(FIRST_LAYER_STREAM + layer,),
    )  # fmt: skip
    decode = model.tokenizer.decode
    return [decode(e.tokens[e.prompt_length :], skip_special_tokens=True) for e in episodes]


def test_runs_that_do_not_belong_together(runs, settings, tiny, tmp_path):
    with pytest.raises(Exception, match="two runs at least"):
        layerpick("vote", runs[0], *options(settings))
    with pytest.raises(Exception, match="other task settings"):
        layerpick("vote", *runs, "--template", "{expression} is")
    description = json.loads((runs[1] / "run.json").read_text())
    description["settings"]["heldout_samples"] = 7
    (runs[1] / "run.json").write_text(json.dumps(description))
    result = {**json.loads((runs[1] / "result.json").read_text()), "run": None}
    (runs[1] / "result.json").write_text(json.dumps(result))
    with pytest.raises(Exception, match=r"differ in heldout_samples \(2, 7\)"):
        layerpick("vote", *runs, *options(settings))


def test_what_is_one_answer():
    task = MathTask(TaskSettings())
    assert task.final_answer("It is 3.\n#### 12") == task.final_answer("12.0")
    assert task.final_answer(r"So \boxed{\frac{1}{2}}") == task.final_answer(r"\boxed{\frac{2}{4}}")
    assert task.final_answer("12") != task.final_answer("-12")
