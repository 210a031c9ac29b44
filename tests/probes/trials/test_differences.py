"""Trials of bfloat16 models, read as differences, against the same weights in float32."""

import dataclasses

import numpy as np
import pytest
import torch

from layerpick.probes.base import ProbeSizes
from layerpick.probes.trials.differences import DifferenceReader
from layerpick.probes.trials.one_step import OneStepProbe
from layerpick.probes.trials.prefixes import texts
from layerpick.probes.trials.reader import Reader, in_float32, make_reader

SMALL = ProbeSizes(one_step_stride=1.0)


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma2", "gemma3_text", "phi3"])
def test_a_step_that_bfloat16_would_drown_is_seen(make_probe_input, tiny, family):
    """Gemma 2 caps its logits, GPT-2 keeps its weights the other way round."""
    rough = tiny(family)
    rough.model.bfloat16()
    exact = in_float32(rough)
    assert isinstance(make_reader(make_probe_input(rough)), DifferenceReader)
    found, expected = (
        OneStepProbe().measure(make_probe_input(model, learning_rate=2e-5, sizes=SMALL)).features
        for model in (rough, exact)
    )
    kl = expected["long_step_kl"]
    assert kl.max() < 1e-2, "log-probabilities move by less than bfloat16 rounds"
    # The gradients, and so the step itself, carry bfloat16's rounding.
    assert found["long_step_kl"] == pytest.approx(kl, rel=0.2)
    gains = expected["long_step_gain"]
    assert found["long_step_gain"] == pytest.approx(gains, abs=0.2 * np.abs(gains).max())


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_gradients_are_those_of_float32(make_probe_input, tiny, family):
    rough = tiny(family)
    rough.model.bfloat16()
    probe_input = make_probe_input(rough)
    lessons = [text for text in texts(probe_input, range(5)) if text.teaches]
    found = make_reader(probe_input).gradients(lessons)
    expected = Reader(in_float32(rough), 0.8).gradients(lessons)
    for mine, exact in zip(found, expected, strict=True):
        assert mine.keys() == exact.keys()
        flat = [torch.cat([g[name].float().flatten() for name in exact]) for g in (mine, exact)]
        assert torch.cosine_similarity(*flat, dim=0) > 0.99


def test_a_policy_that_has_not_moved_is_the_model(make_probe_input, tiny):
    rough = tiny("llama")
    rough.model.bfloat16()
    probe_input = make_probe_input(rough)
    reader = make_reader(probe_input)
    for text in texts(probe_input, range(5)):
        for known in (reader.base(text), reader.base(text, 1)):
            with torch.no_grad():
                still = reader.log_probs(known, 1, reader.policy(1))
            assert torch.allclose(still, known.base, atol=1e-5)


def test_samples_that_are_the_same_are_read_once(make_probe_input, tiny):
    probe_input = make_probe_input(tiny("llama"), groups=2, silent=0)
    first, *others = probe_input.rollouts.trajectories
    twice = dataclasses.replace(probe_input.rollouts, trajectories=(first, first, *others[1:]))
    doubled = dataclasses.replace(probe_input, rollouts=twice)
    read = list(texts(doubled, range(2)))
    assert sum(len(text.trajectories) for text in read) == len(twice.trajectories)
    assert sum(len(text.lengths) for text in read) == len(twice.trajectories) - 1
    values = [torch.ones(len(text.weights)) for text in read]
    counted = [text.by_trajectory(one) for text, one in zip(read, values, strict=True)]
    written = [[t.generated for t in text.trajectories] for text in read]
    assert all(map(np.array_equal, counted, written))
