"""Each statistic against full gradients, kept whole, in float64."""

import dataclasses

import numpy as np
import pytest
import torch

import layerpick.probes.gradient.sketch as sketch
import layerpick.probes.reading.token_losses as token_losses
from layerpick.probes.base import ProbeInput, ProbeSizes
from layerpick.probes.gradient.probe import GradientProbe
from layerpick.probes.gradient.sketch import KINDS, parameter_kind
from layerpick.probes.gradient.statistics import FISHER_DAMPING
from layerpick.probes.reading.passes import groups_with_signal
from layerpick.probes.reading.token_losses import FIRST_TOKENS, TOKEN_CLASSES, mean_rewards
from layerpick.probes.run import run_probe
from layerpick.training.algorithms.table import ALGORITHMS
from layerpick.training.errors import LayerpickError

FLOAT32 = 2.0**-24
"""Half a unit in the last place of 1."""


def full_gradients(probe_input: ProbeInput) -> list[np.ndarray]:
    """Per layer (groups, parameters), float64: plain autograd, no padding, no hooks."""
    model = probe_input.model.model
    parameters = [list(module.parameters()) for module in probe_input.model.layers]
    rows = [[] for _ in parameters]
    flat = [parameter for layer in parameters for parameter in layer]
    for parameter in flat:
        parameter.requires_grad_(True)
    for group, advantages in zip(
        probe_input.rollouts.groups,
        probe_input.rollouts.advantages(probe_input.algorithm),
        strict=True,
    ):
        loss = torch.zeros((), dtype=torch.float64)
        for trajectory, turns in zip(group, advantages, strict=True):
            logits = model(input_ids=torch.tensor([trajectory.tokens])).logits[0].double()
            log_probs = torch.log_softmax(logits / probe_input.rollouts.origin.temperature, -1)
            weight = probe_input.algorithm.token_weight(
                trajectory.generated, probe_input.rollouts.max_trajectory_tokens
            )
            for turn, advantage in zip(trajectory.turns, turns, strict=True):
                for position in range(turn.start, turn.end):
                    token = trajectory.tokens[position]
                    loss = loss - weight * advantage * log_probs[position - 1, token] / len(group)
        gradients = iter(torch.autograd.grad(loss, flat, allow_unused=True))
        for layer, owned in enumerate(parameters):
            parts = [next(gradients) for _ in owned]
            parts = [
                torch.zeros_like(p) if g is None else g for g, p in zip(parts, owned, strict=True)
            ]
            rows[layer].append(torch.cat([part.flatten() for part in parts]).double().numpy())
    for parameter in flat:
        parameter.requires_grad_(False)
    return [np.stack(layer) for layer in rows]


def fisher_terms(g: np.ndarray, a, b) -> float:
    """What the terms of the Fisher gain add up to where nothing cancels: its rounding's measure."""
    fisher = (g**2).mean(axis=0)
    sizes = np.abs(g[a]).mean(axis=0) * np.abs(g[b]).mean(axis=0)
    return float((sizes / (fisher + FISHER_DAMPING * fisher.mean())).sum())


def obvious_statistics(g: np.ndarray, weights: np.ndarray, a, b) -> dict[str, float]:
    groups = len(g)
    mean = g.mean(axis=0)
    pairs = [g[m] @ g[n] for m in range(groups) for n in range(groups) if m != n]
    variance = ((g - mean) ** 2).sum() / (groups - 1)
    fisher = (g**2).mean(axis=0)
    g_a, g_b = g[a].mean(axis=0), g[b].mean(axis=0)
    return {
        "gradient_norm": np.linalg.norm(mean),
        "relative_gradient_norm": np.linalg.norm(mean) / np.linalg.norm(weights),
        "gradient_signal": np.mean(pairs),
        "gradient_snr": np.mean(pairs) / variance,
        "fisher_trace": (g**2).sum(axis=1).mean(),
        "fisher_gain": (g_a * g_b / (fisher + FISHER_DAMPING * fisher.mean())).sum(),
        "adam_gain": (np.sign(g_a) @ g_b + np.sign(g_b) @ g_a) / 2,
    }


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "gpt2"])
def test_statistics_equal_those_of_full_gradients(make_probe_input, tiny, family, algorithm):
    model = tiny(family)
    model.model.double()
    probe_input = make_probe_input(model, algorithm)
    found = GradientProbe().measure(probe_input)
    features = found.features
    with_signal = [0, 1, 2, 3]
    assert found.tokens == sum(
        len(t.tokens) for g in with_signal for t in probe_input.rollouts.groups[g]
    )
    gradients = full_gradients(probe_input)
    for layer, gradient in enumerate(gradients):
        weights = np.concatenate([p.detach().flatten() for p in model.layers[layer].parameters()])
        expected = obvious_statistics(gradient, weights, [0, 2, 4], [1, 3])
        for name, value in expected.items():
            # Sketches are stored in float32, and signs of rounding-size entries may differ.
            tolerance = max(2e-5 * abs(value), 1e-9)
            if name == "fisher_gain":
                tolerance = max(8 * FLOAT32 * fisher_terms(gradient, [0, 2, 4], [1, 3]), 1e-9)
            if name == "adam_gain":
                tolerance = max(1e-4 * np.abs(gradient).sum() / len(gradient), 1e-9)
            assert features[name][layer] == pytest.approx(value, abs=tolerance), name
    model.model.float()


def class_gradients(probe_input, group: int) -> dict[str, list[np.ndarray]]:
    """Per class of token, per layer: the gradient of its tokens' loss, one token at a time."""
    model, rollouts = probe_input.model.model, probe_input.rollouts
    parameters = [list(module.parameters()) for module in probe_input.model.layers]
    flat = [parameter for layer in parameters for parameter in layer]
    for parameter in flat:
        parameter.requires_grad_(True)
    trajectories = rollouts.groups[group]
    terms = []  # first token of its turn or not, entropy, loss
    advantages = probe_input.algorithm.advantages(trajectories)
    for trajectory, turns in zip(trajectories, advantages, strict=True):
        logits = model(input_ids=torch.tensor([trajectory.tokens])).logits[0].double() / 0.8
        log_probs = torch.log_softmax(logits, -1)
        entropies = -(log_probs.exp() * log_probs).sum(-1)
        longest = rollouts.max_trajectory_tokens
        weight = probe_input.algorithm.token_weight(trajectory.generated, longest)
        for turn, advantage in zip(trajectory.turns, turns, strict=True):
            for t in range(turn.start, turn.end):
                loss = -weight * advantage * log_probs[t - 1, trajectory.tokens[t]]
                first = t < turn.start + FIRST_TOKENS
                terms.append((first, float(entropies[t - 1]), loss / len(trajectories)))
    bar = np.quantile([entropy for _, entropy, _ in terms], 0.8)
    classes = {
        "first_tokens": [loss for first, _, loss in terms if first],
        "high_entropy_tokens": [x for first, entropy, x in terms if not first and entropy > bar],
        "other_tokens": [x for first, entropy, x in terms if not first and entropy <= bar],
    }
    found = {}
    for name, losses in classes.items():
        total = sum(losses, torch.zeros((), dtype=torch.float64)) + 0 * flat[0].sum()
        options = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
        gradients = iter(torch.autograd.grad(total, flat, **options))
        found[name] = [
            np.concatenate([next(gradients).double().flatten().numpy() for _ in owned])
            for owned in parameters
        ]
    for parameter in flat:
        parameter.requires_grad_(False)
    return found


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_parts_equal_gradients_of_their_own(make_probe_input, tiny, family):
    """Module kinds, classes of tokens, agreement between prompts and between halves."""
    model = tiny(family)
    model.model.double()
    probe_input = make_probe_input(
        model, sizes=ProbeSizes(token_class_groups=3), size=6, longest=18
    )
    assert groups_with_signal(probe_input) == [0, 1, 2, 3]
    features = GradientProbe().measure(probe_input).features
    by_class = [class_gradients(probe_input, group) for group in range(3)]
    difficulty = sorted(range(4), key=lambda g: (-mean_rewards(probe_input)[g], g))
    for layer, gradient in enumerate(full_gradients(probe_input)):
        kinds = np.concatenate(
            [
                np.full(p.numel(), parameter_kind(name))
                for name, p in model.layers[layer].named_parameters()
            ]
        )
        parts = {kind: gradient[:, kinds == kind] for kind in KINDS}
        for name in TOKEN_CLASSES:
            parts[name] = np.stack([classes[name][layer] for classes in by_class])
        for part, own in parts.items():
            weights = np.ones(own.shape[1])
            expected = obvious_statistics(own, weights, [0], [1])
            for name in ("gradient_norm", "gradient_snr"):
                found = features[f"{name}_{part}"][layer]
                assert found == pytest.approx(expected[name], rel=1e-4, abs=1e-7), (name, part)
        unit = gradient[:4] / np.linalg.norm(gradient[:4], axis=1, keepdims=True)
        cosines = [unit[m] @ unit[n] for m in range(4) for n in range(4) if m != n]
        assert features["gradient_agreement"][layer] == pytest.approx(np.mean(cosines), rel=1e-4)
        easier, harder = gradient[difficulty[:2]].mean(0), gradient[difficulty[2:]].mean(0)
        cosine = easier @ harder / np.linalg.norm(easier) / np.linalg.norm(harder)
        assert features["difficulty_agreement"][layer] == pytest.approx(cosine, rel=1e-4)
    model.model.float()


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_agreement_with_another_task_equals_that_of_full_gradients(make_probe_input, tiny, family):
    """Another task's rollouts change nothing but what compares with them."""
    model = tiny(family)
    model.model.double()
    alone = make_probe_input(model)
    probe_input = make_probe_input(model, other={"groups": 3, "size": 3, "seed": 7, "silent": 1})
    found, without = GradientProbe().measure(probe_input), GradientProbe().measure(alone)
    other = dataclasses.replace(probe_input, rollouts=probe_input.other)
    both = zip(full_gradients(probe_input), full_gradients(other), strict=True)
    for layer, means in enumerate([each.mean(axis=0) for each in pair] for pair in both):
        cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
        assert found.features["task_agreement"][layer] == pytest.approx(cosine, rel=1e-4)
    for name, values in without.features.items():
        assert found.features[name] == pytest.approx(values, rel=1e-5), name
    assert set(found.features) == {*without.features, "task_agreement"} and not without.left_out
    read = sum(len(t.tokens) for g in groups_with_signal(other) for t in other.rollouts.groups[g])
    assert found.tokens == without.tokens + read
    same = dataclasses.replace(alone, other=alone.rollouts)
    assert GradientProbe().measure(same).features["task_agreement"] == pytest.approx(np.ones(3))
    model.model.float()


def test_another_task_without_signal_is_left_out(make_probe_input, tiny):
    found = GradientProbe().measure(
        make_probe_input(tiny("llama"), other={"groups": 2, "silent": 2})
    )
    assert "no group that carries signal" in found.left_out["task_agreement"]
    assert "task_agreement" not in found.features


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("self_attn.q_proj.weight", "attention"),
        ("attn.c_attn.bias", "attention"),
        ("attention.query_key_value.weight", "attention"),
        ("self_attn.q_norm.weight", "norms"),
        ("post_attention_layernorm.weight", "norms"),
        ("ln_1.bias", "norms"),
        ("mlp.down_proj.weight", "mlp"),
        ("mlp.experts.gate_up_proj", "mlp"),
    ],
)
def test_kinds_of_parameters(name, kind):
    assert parameter_kind(name) == kind


def test_what_needs_two_prompts_with_signal_is_left_out(make_probe_input, tiny):
    found = GradientProbe().measure(make_probe_input(tiny("llama"), groups=3, silent=2))
    assert "gradient_agreement" in found.left_out
    assert "gradient_snr_first_tokens" in found.left_out
    assert "gradient_snr_mlp" in found.features
    assert not set(found.left_out) & set(found.features)


def test_groups_that_are_read_in_parts_have_the_same_gradients(make_probe_input, tiny, monkeypatch):
    probe_input = make_probe_input(tiny("llama"), sizes=ProbeSizes(token_class_groups=2))
    whole = GradientProbe().measure(probe_input).features
    longest = max(len(each.tokens) for each in probe_input.rollouts.trajectories)
    monkeypatch.setattr(token_losses, "MOST_TOKENS", 2 * longest)
    signal = groups_with_signal(probe_input)
    assert all(len(token_losses.parts_of(probe_input, group)) > 1 for group in signal)
    parts = GradientProbe().measure(probe_input).features
    assert parts.keys() == whole.keys()
    for name, values in whole.items():
        # Parts are padded otherwise, so sums are rounded otherwise.
        assert parts[name] == pytest.approx(values, rel=1e-3, abs=1e-3 * np.abs(values).max()), name
    assert all(p.grad is None for p in probe_input.model.model.parameters())


def test_a_subset_of_coordinates_is_unbiased(make_probe_input, tiny, monkeypatch):
    """Over many choices of coordinates, estimates average to the exact values."""
    probe_input = make_probe_input(tiny("llama"), sizes=ProbeSizes(token_class_groups=0))
    exact = GradientProbe().measure(probe_input).features
    monkeypatch.setattr(sketch, "COORDINATES_PER_LAYER", 600)
    monkeypatch.setattr(sketch, "FEWEST_PER_PARAMETER", 16)
    draws = [
        GradientProbe().measure(dataclasses.replace(probe_input, seed=seed)).features
        for seed in range(60)
    ]
    for name in ("gradient_signal", "adam_gain"):
        values = np.stack([draw[name] for draw in draws])
        error = values.std(axis=0, ddof=1) / np.sqrt(len(draws))
        assert (np.abs(values.mean(axis=0) - exact[name]) < 4 * error).all(), name
        assert (values.std(axis=0) > 0).all()
    for draw in draws:  # squared norms are exact whatever is kept
        assert draw["fisher_trace"] == pytest.approx(exact["fisher_trace"], rel=1e-5)


def test_scaling_the_loss_leaves_ratios_unchanged(make_probe_input, tiny):
    probe_input = make_probe_input(tiny("qwen2"))
    before = GradientProbe().measure(probe_input).features

    class Louder(type(probe_input.algorithm)):
        def token_weight(self, generated, max_tokens):
            return 10 * super().token_weight(generated, max_tokens)

    after = GradientProbe().measure(dataclasses.replace(probe_input, algorithm=Louder())).features
    for name, factor in (("gradient_snr", 1), ("fisher_gain", 1), ("gradient_norm", 10)):
        assert after[name] == pytest.approx(factor * before[name], rel=1e-3), name


def test_it_leaves_the_model_as_it_was(make_probe_input, tiny):
    model = tiny("gpt_neox")
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    probe_input = make_probe_input(model, other={"seed": 1})
    result = run_probe(GradientProbe(), probe_input)
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None and not p.requires_grad for p in model.model.parameters())
    assert set(result.features) == {info.name for info in GradientProbe.features}
    assert all(
        len(values) == 3 and np.isfinite(values).all() for values in result.features.values()
    )
    assert result.cost.seconds > 0 and result.cost.peak_bytes > 1e7


def test_every_family_in_bfloat16_has_no_nan(make_probe_input, tiny, family):
    model = tiny(family)
    model.model.to(torch.bfloat16)
    features = GradientProbe().measure(make_probe_input(model)).features
    assert all(np.isfinite(values).all() for values in features.values())


def test_one_prompt_is_too_few(make_probe_input, tiny):
    with pytest.raises(LayerpickError, match="--prompts 2"):
        GradientProbe().measure(make_probe_input(tiny("qwen3"), groups=1, silent=0))
