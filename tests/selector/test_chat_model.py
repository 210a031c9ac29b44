"""A chat model from the Hub, through the README's commands: Qwen3-4B's own classes, made tiny.

The Hub is stood in for by a folder and generated rows in GSM8K's form; the model has learned to
box some digit and to end its turn, so that a few of its answers are right.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from layerpick.selector.app.app import run
from layerpick.training.models.loading import load_model

NAME = "Qwen/Qwen3-4B"
STEPS = "Please reason step by step, and put your final answer within \\boxed{}."
FEW = ("--steps", "2", "--prompts", "4", "--heldout-prompts", "4", "--batch-size", "64")


def qwen3_tokenizer(chat_template: str) -> Qwen2Tokenizer:
    """Of Qwen3's class, a token a byte."""
    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer(
        vocab={symbol: number for number, symbol in enumerate(symbols)},
        merges=[],
        unk_token=None,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        extra_special_tokens={},
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def teach(model, tokenizer) -> None:
    """To answer whatever it is asked with a digit in a box, whichever.

    What stands further back hardly counts for it, so that a short text teaches for long ones.
    """
    opening = tokenizer("</think>\n\n")["input_ids"]
    ends = tokenizer([f"\\boxed{{{digit}}}<|im_end|>" for digit in range(1, 10)])["input_ids"]
    ids = torch.tensor([opening + end for end in ends])
    labels = ids.clone()
    labels[:, : len(opening)] = -100
    attention = [p for name, p in model.named_parameters() if "o_proj" in name]
    with torch.no_grad():
        for parameter in attention:
            parameter.mul_(0.01)
    optimizer = torch.optim.AdamW(set(model.parameters()) - set(attention), lr=1e-2)
    for _ in range(120):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def folder(make_chat_tokenizer, tmp_path_factory) -> Path:
    """Named as a snapshot of the Hub is: by its commit."""
    path = tmp_path_factory.mktemp("snapshots") / "0123abcd"
    tokenizer = qwen3_tokenizer(make_chat_tokenizer("qwen3").chat_template)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=40960,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    teach(model, tokenizer)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    assert isinstance(AutoTokenizer.from_pretrained(path), Qwen2Tokenizer)
    return path


@pytest.fixture
def layerpick(folder, monkeypatch, tmp_path, capsys):
    """`layerpick(…)`: a command in an empty folder, with the Hub at hand; its stdout."""
    import datasets
    import huggingface_hub

    rows = [
        {
            "question": f"Ann has {a} figs and gets {b}.",
            "answer": f"{a}+{b}\n#### {(a + b) % 9 + 1}",
        }
        for a in range(30)
        for b in range(30)
    ]
    hub = {"train": rows[:600], "test": rows[600:]}
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(folder))
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["main", "socratic"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names) or hub)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["layerpick", *map(str, arguments)])
        code = run()
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert set(asked) <= {("openai/gsm8k", "main")}
        return captured.out + captured.err

    return call


@pytest.mark.slow
def test_the_readmes_commands_on_a_chat_model(layerpick, tmp_path):
    said = layerpick("suggest", NAME, "--task", "math")
    assert "a user's message in the model's chat template" in said and STEPS in said
    assert "--chat-template-kwargs '{\"enable_thinking\": true}' turns it on" in said
    suggestion = json.loads((tmp_path / "layerpick-out/suggestion.json").read_text())
    assert suggestion["model"]["id"] == NAME and suggestion["model"]["revision"] == "0123abcd"
    rollouts = suggestion["rollouts"]
    assert rollouts["max_new_tokens"] == 1024 and rollouts["prompts"] == 64
    assert rollouts["cut"] < 0.05 and rollouts["readable"] > 0.9
    assert 0 < rollouts["mean_reward"] < 0.5 and rollouts["groups_with_signal"] > 10
    assert suggestion["task"]["source"] == "openai/gsm8k"

    said = layerpick("train", NAME, "--task", "math", "--layer", "auto", *FEW)
    assert "Completions cut off at 1,024 tokens: " in said
    (place,) = (tmp_path / "runs").glob("*/math-grpo/*")
    settings = json.loads((place / "run.json").read_text())["settings"]
    assert settings["prompt_form"] == suggestion["task"]["prompt_form"]

    layerpick("apply", place, "--out", "merged")
    merged = load_model("merged")
    assert type(merged.model).__name__ == "Qwen3ForCausalLM"
    assert merged.tokenizer.chat_template and isinstance(merged.tokenizer, Qwen2Tokenizer)

    said = layerpick("sweep", NAME, "--task", "math", *FEW, "--lr-grid", "1e-3", "--probes", "none")
    assert "of the held-out completions cut off at 1,024 tokens" in said
    assert STEPS in layerpick("sweep", "--show", "sweeps")
    said = layerpick("verify", "layerpick-out/suggestion.json", "--sweep", "sweeps")
    assert f"layer {suggestion['pick']}" in said
    assert "layer" in layerpick("verify", place)


def test_rollouts_show_what_is_asked_and_said(layerpick):
    shown = json.loads(layerpick("rollouts", NAME, "--task", "math", "--prompts", "3", "--json"))
    assert len(shown["rollouts"]) == 6
    for each in shown["rollouts"]:
        assert each["prompt"].startswith("<|im_start|>user\nAnn has ")
        assert each["prompt"].endswith(
            f"{STEPS}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )
        assert each["answer"] in (each["completion"], None) and not each["cut"]
        right = each["answer"] == f"\\boxed{{{each['expected']}}}"
        assert each["reward"] == float(right)
    text = layerpick("rollouts", NAME, "--system", "Be brief.", "--instruction", "none")
    assert "<|im_start|>system\nBe brief.<|im_end|>" in text and "reason step by step" not in text
    assert "completion 2: reward" in text and "\\boxed{" in text


def test_completions_that_are_cut_off_are_the_cause_named(layerpick):
    with pytest.raises(AssertionError, match="cut off at 5 tokens, before their answer"):
        layerpick("suggest", NAME, "--max-new-tokens", "5", "--prompts", "4")
