"""Each statistic against full gradients, kept whole, in float64."""

import dataclasses

import numpy as np
import pytest
import torch

import layerpick.probes.sketch as sketch
from layerpick.probes.base import ProbeInput
from layerpick.probes.gradient import FISHER_DAMPING, GradientProbe
from layerpick.probes.measuring import run_probe
from layerpick.training.algorithms.table import ALGORITHMS, make_algorithm
from layerpick.training.errors import LayerpickError
from layerpick.training.rollouts import RolloutOrigin, Rollouts
from layerpick.training.trajectory import Trajectory, Turn


def some_rollouts(groups=5, size=4, seed=0, silent=1) -> Rollouts:
    """Random tokens in two turns; the last `silent` groups earn the same throughout."""
    generator = np.random.default_rng(seed)
    trajectories = []
    for group in range(groups):
        for _ in range(size):
            length = int(generator.integers(7, 12))
            tokens = tuple(generator.integers(2, 250, size=length).tolist())
            earned = float(generator.integers(2)) if group < groups - silent else 0.0
            turns = (Turn(3, 5, f"{group}", 0.0), Turn(6, length, "later", earned))
            trajectories.append(Trajectory(group, tokens, turns, earned))
    origin = RolloutOrigin("", "math", "", groups, size, 8, 2, 0.8, seed)
    return Rollouts(origin, tuple(trajectories))


def full_gradients(shared: ProbeInput) -> list[np.ndarray]:
    """Per layer (groups, parameters), float64: plain autograd, no padding, no hooks."""
    model = shared.model.model
    parameters = [list(module.parameters()) for module in shared.model.layers]
    rows = [[] for _ in parameters]
    flat = [parameter for layer in parameters for parameter in layer]
    for parameter in flat:
        parameter.requires_grad_(True)
    for group, advantages in zip(
        shared.rollouts.groups, shared.rollouts.advantages(shared.algorithm), strict=True
    ):
        loss = torch.zeros((), dtype=torch.float64)
        for trajectory, turns in zip(group, advantages, strict=True):
            logits = model(input_ids=torch.tensor([trajectory.tokens])).logits[0].double()
            log_probs = torch.log_softmax(logits / shared.rollouts.origin.temperature, -1)
            weight = shared.algorithm.token_weight(
                trajectory.generated, shared.rollouts.max_trajectory_tokens
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


def probe_input(model, algorithm="grpo", **kwargs) -> ProbeInput:
    return ProbeInput(model, some_rollouts(**kwargs), make_algorithm(algorithm), seed=0)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "gpt2"])
def test_statistics_equal_those_of_full_gradients(tiny, family, algorithm):
    model = tiny(family)
    model.model.double()
    shared = probe_input(model, algorithm)
    features, tokens = GradientProbe().measure(shared)
    with_signal = [0, 1, 2, 3]
    assert tokens == sum(len(t.tokens) for g in with_signal for t in shared.rollouts.groups[g])
    gradients = full_gradients(shared)
    for layer, gradient in enumerate(gradients):
        weights = np.concatenate([p.detach().flatten() for p in model.layers[layer].parameters()])
        expected = obvious_statistics(gradient, weights, [0, 2, 4], [1, 3])
        for name, value in expected.items():
            # Sketches are stored in float32, and signs of rounding-size entries may differ.
            tolerance = max(2e-5 * abs(value), 1e-9)
            if name == "adam_gain":
                tolerance = max(1e-4 * np.abs(gradient).sum() / len(gradient), 1e-9)
            assert features[name][layer] == pytest.approx(value, abs=tolerance), name
    model.model.float()


def test_a_subset_of_coordinates_is_unbiased(tiny, monkeypatch):
    """Over many choices of coordinates, estimates average to the exact values."""
    shared = probe_input(tiny("llama"))
    exact, _ = GradientProbe().measure(shared)
    monkeypatch.setattr(sketch, "COORDINATES_PER_LAYER", 600)
    monkeypatch.setattr(sketch, "FEWEST_PER_PARAMETER", 16)
    draws = [
        GradientProbe().measure(dataclasses.replace(shared, seed=seed))[0] for seed in range(60)
    ]
    for name in ("gradient_signal", "adam_gain"):
        values = np.stack([draw[name] for draw in draws])
        error = values.std(axis=0, ddof=1) / np.sqrt(len(draws))
        assert (np.abs(values.mean(axis=0) - exact[name]) < 4 * error).all(), name
        assert (values.std(axis=0) > 0).all()
    for draw in draws:  # squared norms are exact whatever is kept
        assert draw["fisher_trace"] == pytest.approx(exact["fisher_trace"], rel=1e-5)


def test_scaling_the_loss_leaves_ratios_unchanged(tiny):
    shared = probe_input(tiny("qwen2"))
    before, _ = GradientProbe().measure(shared)

    class Louder(type(shared.algorithm)):
        def token_weight(self, generated, max_tokens):
            return 10 * super().token_weight(generated, max_tokens)

    after, _ = GradientProbe().measure(dataclasses.replace(shared, algorithm=Louder()))
    for name, factor in (("gradient_snr", 1), ("fisher_gain", 1), ("gradient_norm", 10)):
        assert after[name] == pytest.approx(factor * before[name], rel=1e-3), name


def test_it_leaves_the_model_as_it_was(tiny):
    model = tiny("gpt_neox")
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    shared = probe_input(model)
    result = run_probe(GradientProbe(), shared)
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None and not p.requires_grad for p in model.model.parameters())
    assert set(result.features) == {info.name for info in GradientProbe.features}
    assert all(
        len(values) == 3 and np.isfinite(values).all() for values in result.features.values()
    )
    assert result.cost.seconds > 0 and result.cost.peak_bytes > 1e7


def test_every_family_in_bfloat16_has_no_nan(tiny, family):
    model = tiny(family)
    model.model.to(torch.bfloat16)
    features, _ = GradientProbe().measure(probe_input(model))
    assert all(np.isfinite(values).all() for values in features.values())


def test_one_prompt_is_too_few(tiny):
    with pytest.raises(LayerpickError, match="--prompts 2"):
        GradientProbe().measure(probe_input(tiny("qwen3"), groups=1, silent=0))
