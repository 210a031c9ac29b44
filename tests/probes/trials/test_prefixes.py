"""Texts that probes read, packed, against each trajectory read alone."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from layerpick.probes.trials.prefixes import texts
from layerpick.probes.trials.reader import make_reader
from layerpick.training.episodes.rollouts import Rollouts
from layerpick.training.models.loading import load_model
from layerpick.training.pretraining.tokenizer import byte_tokenizer


@pytest.fixture(scope="module")
def chunked(tmp_path_factory):
    """A model whose layers look back within chunks of 16 columns, as Llama 4's do."""
    config = AutoConfig.for_model(
        "llama4_text",
        vocab_size=258,
        hidden_size=32,
        intermediate_size=48,
        intermediate_size_mlp=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=2,
        attention_chunk_size=16,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    folder = tmp_path_factory.mktemp("llama4_text")
    model.save_pretrained(folder)
    byte_tokenizer(256).save_pretrained(folder)
    return load_model(str(folder), device="cpu")


def one_prompt_per_group(probe_input):
    """The same rollouts, those of a group after one prompt of eight tokens."""

    def after(prompt, trajectory):
        turns = tuple(
            dataclasses.replace(turn, start=turn.start + 5, end=turn.end + 5)
            for turn in trajectory.turns
        )
        tokens = (*prompt, *trajectory.tokens[3:])
        return dataclasses.replace(trajectory, tokens=tokens, turns=turns)

    rollouts = probe_input.rollouts
    same = [after(range(t.group + 10, t.group + 18), t) for t in rollouts.trajectories]
    return dataclasses.replace(probe_input, rollouts=Rollouts(rollouts.origin, tuple(same)))


@pytest.mark.parametrize("longest", [10, 24])
def test_samples_share_rows_only_within_a_chunk_of_attention(chunked, make_probe_input, longest):
    probe_input = one_prompt_per_group(make_probe_input(chunked, longest=longest))
    reader = make_reader(probe_input)
    for text in texts(probe_input, range(5)):
        found = reader.base(text).base.split(text.lengths.tolist())
        for trajectory, sample in zip(text.trajectories, text.reading, strict=True):
            tokens = torch.tensor([trajectory.tokens])
            with torch.no_grad():
                alone = torch.log_softmax(chunked.model(input_ids=tokens).logits[0] / 0.8, dim=-1)
            places = np.flatnonzero(trajectory.model_mask)
            expected = alone[places - 1, tokens[0, places]]
            assert torch.allclose(found[sample], expected, atol=1e-4)
        assert (text.batch.attention_mask.ndim == 4) == (longest < 11), "are samples packed?"
