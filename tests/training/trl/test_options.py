"""Which settings reach TRL, and which are refused before anything is trained."""

from __future__ import annotations

import json

import pytest

from layerpick.training.errors import LayerpickError
from layerpick.training.runs.folder import RunFolder
from layerpick.training.trl import run as trl_training
from layerpick.training.trl.options import parse_trl_options
from layerpick.training.trl.run import TrlSettings, make_config, train

ONE = TrlSettings(layers=(1,), learning_rate=1e-3)


def test_what_cannot_be_trained_is_refused(tiny, make_bench, tmp_path, scripted, monkeypatch):
    model = tiny("llama")
    talk = make_bench(model, "gigpo", task=scripted, group_size=2)
    with pytest.raises(LayerpickError, match="write single turns"):
        train(talk, TrlSettings((1,), 1e-3, vllm="colocate"), RunFolder(tmp_path))
    with pytest.raises(LayerpickError, match="server or colocate"):
        train(make_bench(model), TrlSettings((1,), 1e-3, vllm="fast"), RunFolder(tmp_path))
    with pytest.raises(LayerpickError, match="trackio, wandb, tensorboard"):
        train(make_bench(model), TrlSettings((1,), 1e-3, report_to=("x",)), RunFolder(tmp_path))
    monkeypatch.setattr(trl_training, "find_spec", lambda _: None)
    with pytest.raises(LayerpickError, match="wandb, which is not installed: pip install wandb"):
        train(make_bench(model), TrlSettings((1,), 1e-3, report_to=("wandb",)), RunFolder(tmp_path))
    uneven = TrlSettings((1,), 1e-3, trl={"num_iterations": 4})
    with pytest.raises(LayerpickError, match="multiple of num_iterations"):
        train(make_bench(model), uneven, RunFolder(tmp_path))
    wrong = TrlSettings((1,), 1e-3, trl={"optim": "sgdd"})
    with pytest.raises(LayerpickError, match="TRL refuses these settings"):
        train(make_bench(model), wrong, RunFolder(tmp_path))
    model.model.half()
    with pytest.raises(LayerpickError, match="float16 is for inference"):
        train(make_bench(model), ONE, RunFolder(tmp_path))


def test_trl_options_reach_trl(tiny, make_bench, tmp_path):
    given = parse_trl_options(
        ["lr_scheduler_type=cosine", "warmup_steps=3", "epsilon_high=0.4", "delta=none"]
    )
    config = make_config(make_bench(tiny("llama")), TrlSettings((1,), 1e-3, trl=given), "out")
    assert (config.lr_scheduler_type, config.warmup_steps) == ("cosine", 3)
    assert (config.epsilon_high, config.delta, config.beta) == (0.4, None, 0.0)
    assert json.dumps(given)  # they are kept in run.json


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("top_p", "not of the form key=value"),
        ("learning_rat=1", "no such field; did you mean learning_rate"),
        ("top_p=high", "must be of type float"),
        ("log_completions=maybe", "must be of type bool"),
        ("beta=0.1", "is set by --beta"),
        ("logging_steps=10", "every step is kept"),
        ("sync_ref_model=true", "no second model"),
    ],
)
def test_trl_options_that_are_wrong(option, message):
    with pytest.raises(LayerpickError, match=message):
        parse_trl_options([option])
