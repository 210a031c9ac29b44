"""Off-policy probes against plain training of a whole model, without packing or shared states."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpick.probes.base import ProbeSizes
from layerpick.probes.run import run_probe
from layerpick.probes.table import PROBES
from layerpick.probes.trials import prefixes as fixed_texts
from layerpick.probes.trials.off_policy import OffPolicyProbe, cross_fitting_halves
from layerpick.probes.trials.one_step import OneStepProbe
from layerpick.probes.trials.scores import WEIGHT_CAP, PromptScore, score_prompt, summary

RATE = 1e-3
FEW = ProbeSizes(
    one_step_stride=1.0, off_policy_steps=(1, 3), off_policy_stride=1.0, equal_kl_steps=(1,)
)


@pytest.fixture
def probe_input(make_probe_input, tiny, family):
    return make_probe_input(tiny(family), learning_rate=RATE, sizes=FEW)


def log_probs(model, trajectory) -> torch.Tensor:
    """(written tokens,), float64."""
    tokens = torch.tensor([trajectory.tokens])
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[0].double()
    every = torch.log_softmax(logits / 0.8, -1)
    places = np.flatnonzero(trajectory.model_mask)
    return torch.stack([every[p - 1, trajectory.tokens[p]] for p in places])


def plain_warm_up(probe_input, layer: int, train: list[int], test: list[int], steps: int):
    """(log π − log π₀ of each token) of the trajectories of `test`, by prompt."""
    model, rollouts = copy.deepcopy(probe_input.model.model), probe_input.rollouts
    prefix = probe_input.model.layers.prefix(layer)
    own = [p for name, p in model.named_parameters() if name.startswith(prefix)]
    for parameter in own:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(own, RATE, weight_decay=0.0)
    chosen = [(g, i) for g in train for i in range(len(rollouts.groups[g]))]
    for _ in range(steps):
        loss = 0
        for group, index in chosen:
            trajectory = rollouts.groups[group][index]
            turns = probe_input.algorithm.advantages(rollouts.groups[group])[index]
            advantages = torch.cat(
                [
                    torch.full((turn.end - turn.start,), float(value))
                    for turn, value in zip(trajectory.turns, turns, strict=True)
                ]
            )
            before = log_probs(probe_input.model.model, trajectory).detach()
            ratio = (log_probs(model, trajectory) - before).exp()
            clipped = ratio.clamp(0.8, 1.2)
            weight = probe_input.algorithm.token_weight(
                trajectory.generated, rollouts.max_trajectory_tokens
            )
            objective = torch.minimum(ratio * advantages, clipped * advantages).sum()
            loss = loss - weight * objective / len(chosen)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return [
            [
                (log_probs(model, t) - log_probs(probe_input.model.model, t)).numpy()
                for t in rollouts.groups[group]
            ]
            for group in test
        ]


def obvious(probe_input, layer: int, steps: int) -> dict[str, float]:
    first, second = cross_fitting_halves(probe_input)
    gains, normalised, kls = [], [], []
    for train, test in ((first, second), (second, first)):
        moves = plain_warm_up(probe_input, layer, train, test, steps)
        for group, differences in zip(test, moves, strict=True):
            rewards = np.array([t.reward for t in probe_input.rollouts.groups[group]])
            weights = np.array([min(np.exp(d.sum()), 5.0) for d in differences])
            others = [np.delete(rewards, i).mean() for i in range(len(rewards))]
            gains.append(np.mean((weights - 1) * (rewards - others)))
            normalised.append(np.average(rewards, weights=weights) - rewards.mean())
            kls.append(np.mean([(np.exp(d) - 1 - d).sum() for d in differences]))
    return {
        "gain": np.mean(gains),
        "gain_error": np.std(gains, ddof=1) / np.sqrt(len(gains)),
        "normalised_gain": np.mean(normalised),
        "kl": np.mean(kls),
        "gain_per_kl": np.mean(gains) / np.sqrt(np.mean(kls)),
    }


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma3_text"])
def test_features_equal_those_of_plain_training(probe_input):
    found = OffPolicyProbe().measure(probe_input).features
    for layer in (0, 2):
        for steps in (1, 3):
            for name, expected in obvious(probe_input, layer, steps).items():
                measured = found[f"off_policy_{steps}_{name}"][layer]
                # Adam turns rounding of near-zero gradients into whole steps.
                scale = abs(expected) + (
                    0 if "kl" in name else abs(found["off_policy_1_gain"]).max()
                )
                assert measured == pytest.approx(expected, abs=0.05 * scale), (layer, steps, name)


@pytest.mark.parametrize("family", ["qwen3", "gpt_neox"])
def test_one_step_is_the_first_of_many(probe_input):
    many = OffPolicyProbe().measure(probe_input).features
    one = OneStepProbe().measure(probe_input).features
    for name in ("gain", "normalised_gain", "kl", "gain_per_kl"):
        expected = many[f"off_policy_1_{name}"]
        tolerance = 0.02 * np.abs(expected).max()
        assert one[f"long_step_{name}"] == pytest.approx(expected, abs=tolerance), name


@pytest.mark.parametrize("family", ["llama"])
def test_small_batches_change_nothing(probe_input, monkeypatch):
    whole = [run_probe(probe, probe_input) for probe in (OneStepProbe(), OffPolicyProbe())]
    monkeypatch.setattr(fixed_texts, "CHUNK_BYTES", 0.0)
    monkeypatch.setattr(fixed_texts, "FEWEST_TOKENS", 1)
    monkeypatch.setattr(fixed_texts, "ROW_TOKENS", 1)
    halves = cross_fitting_halves(probe_input)
    small = list(fixed_texts.texts(probe_input, halves[0]))
    groups = [{each.group for each in text.trajectories} for text in small]
    assert len(small) > 2 and sum(map(len, groups)) > len(set().union(*groups))  # prompts are split
    for before, probe in zip(whole, (OneStepProbe(), OffPolicyProbe()), strict=True):
        for name, values in run_probe(probe, probe_input).features.items():
            assert values == pytest.approx(before.features[name], rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize(
    ("probe", "field", "prefix"),
    [
        (OffPolicyProbe(), "off_policy_stride", "off_policy_3"),
        (OneStepProbe(), "one_step_stride", "long_step"),
    ],
)
def test_strides_multiply_the_rate(probe_input, probe, field, prefix):
    eight = dataclasses.replace(FEW, **{field: 8.0})
    by_stride = probe.measure(dataclasses.replace(probe_input, sizes=eight)).features
    by_rate = probe.measure(dataclasses.replace(probe_input, learning_rate=8 * RATE)).features
    for name in ("gain", "normalised_gain", "kl"):
        expected = pytest.approx(by_rate[f"{prefix}_{name}"], rel=1e-5)
        assert by_stride[f"{prefix}_{name}"] == expected


@pytest.mark.parametrize("family", ["llama"])
def test_rates_of_equal_movement_move_alike(probe_input):
    found = OffPolicyProbe().measure(probe_input).features
    before, after = found["off_policy_1_kl"], found["equal_kl_1_kl"]
    assert after.max() / after.min() < 0.5 * before.max() / before.min() + 0.6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_learns_and_stays_as_it_was(make_probe_input, tiny, family, dtype):
    model = tiny(family)
    model.model.to(dtype)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    for name in ("one_step", "off_policy"):
        result = run_probe(PROBES[name](), make_probe_input(model, learning_rate=RATE, sizes=FEW))
        assert result.failure is None
        assert all(np.isfinite(values).all() for values in result.features.values())
        moved = next(values for key, values in result.features.items() if key.endswith("kl"))
        assert (moved > 0).all()
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(p.requires_grad or p.grad is not None for p in model.model.parameters())


def test_too_little_signal_is_said(make_probe_input, tiny):
    few = make_probe_input(tiny("qwen3"), groups=3, silent=2)
    assert "Fewer than two prompts" in run_probe(OffPolicyProbe(), few).failure


@pytest.mark.parametrize("family", ["qwen3"])
def test_halves_share_no_prompt_and_both_carry_signal(make_probe_input, probe_input):
    model = probe_input.model
    large = make_probe_input(model, groups=12, silent=5, sizes=ProbeSizes(training_trajectories=32))
    first, second = cross_fitting_halves(large)
    assert not set(first) & set(second) and len(first) == len(second) == 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.integers(0, 1000))
def test_a_policy_that_has_not_moved_gains_nothing(rewards, seed):
    rewards, still = np.array(rewards), np.zeros(len(rewards))
    score = score_prompt(rewards, still, still)
    assert score.gain == 0 and score.normalised_gain == pytest.approx(0, abs=1e-12)
    assert score.kl == 0
    moved = np.random.default_rng(seed).normal(size=len(rewards))
    shifted = score_prompt(rewards + 3, moved, still)  # only differences in reward matter
    assert shifted.gain == pytest.approx(score_prompt(rewards, moved, still).gain, abs=1e-9)


def test_scores_by_hand():
    rewards, moved = np.array([1.0, 0.0]), np.array([np.log(2), 10.0])
    score = score_prompt(rewards, moved, np.array([0.25, 0.75]))
    assert score.gain == pytest.approx(((2 - 1) * 1 + (WEIGHT_CAP - 1) * -1) / 2)
    assert score.normalised_gain == pytest.approx(2 / 7 - 0.5)
    found = summary([score, PromptScore(0.5, 0.0, 1.5)])
    assert found["kl"] == 1 and found["gain_per_kl"] == found["gain"] == pytest.approx(-0.5)
    # d(gain / √kl) = dgain − ½ gain dkl at kl = 1, of prompts (−1.5, ½) and (½, 3/2)
    assert found["gain_per_kl_error"] == pytest.approx(np.std([-1.375, 0.875], ddof=1) / 2**0.5)
    assert summary([PromptScore(0.0, 0.0, 0.0)] * 2)["gain_per_kl"] == 0
