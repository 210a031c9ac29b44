"""Forward probes against plain passes of single trajectories, in float64."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

import layerpick.probes.hidden.probe as hidden_module
from layerpick.probes.base import ProbeSizes
from layerpick.probes.bypass import BypassProbe
from layerpick.probes.hidden.probe import HiddenProbe, read_groups
from layerpick.probes.hidden.separability import separability
from layerpick.probes.run import run_probe
from layerpick.training.errors import LayerpickError

EVERY_POSITION = ProbeSizes(lens_positions=10**6)


@pytest.fixture
def probe_input(make_probe_input, tiny, family):
    model = tiny(family)
    return make_probe_input(precise(model), sizes=EVERY_POSITION)


def precise(model):
    """In float64, but for the experts' grouped products, which PyTorch has not in float64."""
    model.model.to(torch.float32 if "Moe" in type(model.model).__name__ else torch.float64)
    return model


def alone(model, trajectory, **kwargs):
    tokens = torch.tensor([trajectory.tokens])
    with torch.no_grad():
        return model.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **kwargs)


def streams(model, trajectory) -> list[np.ndarray]:
    """Input of the first layer, then the output of every layer: (tokens, width) each."""
    taken = []

    def first(_, args, kwargs):
        taken.append(args[0] if args else kwargs["hidden_states"])

    def later(_, args, output):
        taken.append(output if isinstance(output, torch.Tensor) else output[0])

    handles = [model.layers[0].register_forward_pre_hook(first, with_kwargs=True)]
    handles += [module.register_forward_hook(later) for module in model.layers]
    alone(model, trajectory)
    for handle in handles:
        handle.remove()
    return [stream[0].numpy() for stream in taken]


def obvious(probe_input) -> dict[str, np.ndarray]:
    model = probe_input.model
    rows = {"block_influence": [], "norm_growth": [], "attention_entropy": []}
    before = model.model.config._attn_implementation
    model.model.set_attn_implementation("eager")
    for trajectory in probe_input.rollouts.trajectories:
        places = np.flatnonzero(trajectory.model_mask)
        hidden = [stream[places] for stream in streams(model, trajectory)]
        pairs = list(pairwise(hidden))
        norms = [np.linalg.norm(stream, axis=1) for stream in hidden]
        rows["block_influence"].append(
            [
                np.mean(1 - (a * b).sum(1) / (p * q))
                for (a, b), p, q in zip(pairs, norms[:-1], norms[1:], strict=True)
            ]
        )
        rows["norm_growth"].append([np.log(q / p).mean() for p, q in pairwise(norms)])
        attention = alone(model, trajectory, output_attentions=True).attentions
        rows["attention_entropy"].append(
            [
                np.mean([-(p[p > 0] * np.log(p[p > 0])).sum() for h in a[0] for p in h[places]])
                for a in (weights.double().numpy() for weights in attention)
            ]
        )
    model.model.set_attn_implementation(before)
    return {name: np.mean(values, axis=0) for name, values in rows.items()}


def test_features_equal_those_of_plain_passes(probe_input):
    result = run_probe(HiddenProbe(), probe_input)
    assert result.failure is None
    for name, expected in obvious(probe_input).items():
        # Similarities and norms are taken in float32, and some families' softmax too.
        assert result.features[name] == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    influence = result.features["block_influence"]
    assert ((influence >= 0) & (influence <= 2)).all()
    tokens = sum(len(t.tokens) for t in probe_input.rollouts.trajectories)
    assert result.cost.tokens == tokens
    probe_input.model.model.float()


def test_the_lens_after_the_last_layer_is_the_model_itself(probe_input):
    model = probe_input.model
    found = HiddenProbe().measure(probe_input).features
    entropies = []
    for trajectory in probe_input.rollouts.trajectories:
        logits = alone(model, trajectory).logits[0, torch.from_numpy(trajectory.model_mask)]
        log_probs = torch.log_softmax(logits.double(), -1)
        entropies.append(-(log_probs.exp() * log_probs).sum(-1))
    assert found["lens_entropy"][-1] == pytest.approx(float(torch.cat(entropies).mean()), rel=1e-4)
    # Each layer's drop is the difference of consecutive entropies.
    assert found["lens_entropy_drop"][1:] == pytest.approx(-np.diff(found["lens_entropy"]))
    model.model.float()


def test_the_lens_before_the_last_layer_by_hand(make_probe_input, tiny):
    model = tiny("llama")
    probe_input = make_probe_input(model, sizes=EVERY_POSITION)
    found = HiddenProbe().measure(probe_input).features
    entropies = [[], [], [], []]
    for trajectory in probe_input.rollouts.trajectories:
        for place, stream in zip(entropies, streams(model, trajectory), strict=True):
            written = torch.from_numpy(stream[trajectory.model_mask])
            logits = model.model.lm_head(model.model.model.norm(written))
            place.append(torch.distributions.Categorical(logits=logits).entropy().detach())
    expected = np.array([float(torch.cat(values).mean()) for values in entropies])
    assert found["lens_entropy"] == pytest.approx(expected[1:], rel=1e-4)
    assert found["lens_entropy_drop"] == pytest.approx(-np.diff(expected), rel=1e-3, abs=1e-4)


def test_separable_completions_are_found():
    generator = np.random.default_rng(0)
    prompts = np.repeat(np.arange(20), 8)
    rewards = generator.integers(2, size=160).astype(float)
    noise = generator.normal(size=(160, 12)) + 5 * generator.normal(size=(20, 12))[prompts]
    told = noise.copy()
    told[:, 3] += 6 * rewards
    assert separability(told, rewards, prompts) > 0.97
    assert 0.35 < separability(noise, rewards, prompts) < 0.65
    assert separability(3 * told, rewards, prompts) == pytest.approx(
        separability(told, rewards, prompts)
    )
    with pytest.raises(LayerpickError, match="fewer than two"):
        separability(told, np.where(prompts == 0, rewards, 0.0), prompts)


def test_what_a_model_does_not_allow_is_left_out_with_the_reason(
    make_probe_input, tiny, monkeypatch
):
    probe_input = make_probe_input(tiny("qwen3"), groups=3, silent=2)
    monkeypatch.setattr("layerpick.probes.hidden.lens.final_norm", lambda model: None)
    monkeypatch.setattr(hidden_module, "attention_as", lambda *_: torch.no_grad())  # stays fused
    result = run_probe(HiddenProbe(), probe_input)
    assert set(result.features) == {"block_influence", "norm_growth"}
    for said in ("attention_entropy: ", "lens_entropy, lens_entropy_drop: ", "separability: "):
        assert said in result.failure


def test_the_sizes_take_prompts_with_signal_first(make_probe_input, tiny):
    probe_input = make_probe_input(tiny("qwen3"), groups=6, size=4, silent=2)
    assert read_groups(probe_input) == list(range(6))
    few = dataclasses.replace(probe_input, sizes=ProbeSizes(trajectories=9))
    assert read_groups(few) == [0, 1]
    assert HiddenProbe().ticks(few) == 2


def test_skipping_a_layer_equals_a_model_without_it(make_probe_input, tiny, family):
    model = tiny(family)
    probe_input = make_probe_input(precise(model))
    found = BypassProbe().measure(probe_input)

    def unchanged(_, args, kwargs, output):
        given = args[0] if args else kwargs["hidden_states"]
        return given if isinstance(output, torch.Tensor) else (given, *output[1:])

    def log_likelihood(trajectory, without=None) -> float:
        handles = []
        if without is not None:
            layer = model.layers[without]
            handles.append(layer.register_forward_hook(unchanged, with_kwargs=True))
        logits = alone(model, trajectory).logits[0].double() / 0.8
        for handle in handles:
            handle.remove()
        log_probs = torch.log_softmax(logits, -1)
        places = np.flatnonzero(trajectory.model_mask)
        return float(np.mean([log_probs[p - 1, trajectory.tokens[p]] for p in places]))

    losses, contrasts = [], []
    for group in probe_input.rollouts.groups[:-1]:
        ordered = sorted(group, key=lambda t: -t.reward)
        best, worst = ordered[0], next(t for t in ordered if t.reward == ordered[-1].reward)
        cost = [
            [log_likelihood(t) - log_likelihood(t, layer) for layer in range(3)]
            for t in (best, worst)
        ]
        losses.append(np.mean(cost, axis=0))
        contrasts.append(np.subtract(*cost))
    assert found.features["bypass_loss"] == pytest.approx(np.mean(losses, axis=0), rel=1e-4)
    assert found.features["bypass_contrast"] == pytest.approx(
        np.mean(contrasts, axis=0), rel=1e-3, abs=1e-5
    )
    model.model.float()


def test_no_signal_means_no_contrast(make_probe_input, tiny):
    result = run_probe(BypassProbe(), make_probe_input(tiny("qwen3"), groups=2, silent=2))
    assert result.features == {} and "earn differently" in result.failure
