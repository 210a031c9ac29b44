"""Samples that share one reading of their prompt, against each alone in a padded row."""

from __future__ import annotations

import pytest
import torch

from layerpick.training.batches.packed import pack, packed_log_probs, packs
from layerpick.training.batches.padded import collate, token_log_probs
from layerpick.training.episodes.play import SamplingSettings, play

TEMPERATURE = 1.3
SAMPLING = SamplingSettings(6, temperature=TEMPERATURE, stop=("a", "e"), rows=1000)
PROMPTS, GROUP_SIZE = 3, 4
WINDOW = 8
"""Tokens that a tiny model with a sliding window sees: fewer than a packed row holds."""


@pytest.mark.parametrize("task", ["letters", "scripted"])
def test_packed_samples_have_the_log_probs_that_they_have_alone(tiny, family, task, request):
    model, task = tiny(family), request.getfixturevalue(task)
    prompts = task.prompts("train", PROMPTS, seed=0)
    episodes = play(model, task, prompts, GROUP_SIZE, SAMPLING, seed=0)
    groups = [episodes[i : i + GROUP_SIZE] for i in range(0, len(episodes), GROUP_SIZE)]
    device, dtype = torch.device("cpu"), torch.float32
    batch = collate(episodes, 0, device)
    expected = token_log_probs(model.model, batch, TEMPERATURE)[batch.written]
    apart = pack([[episode] for episode in episodes], 0, device, dtype)
    alone = packed_log_probs(model.model, apart, TEMPERATURE)
    assert torch.allclose(alone, expected, atol=1e-4)
    assert packs(model.model, 0, device, dtype)
    if getattr(model.model.config, "sliding_window", None) != WINDOW:
        together = pack(groups, 0, device, dtype)
        packed = packed_log_probs(model.model, together, TEMPERATURE)
        assert torch.allclose(packed, expected, atol=1e-4)
