"""The on-policy warm-up against plain training of a whole copy of the model, one layer alone."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from layerpick.probes.base import ProbeSizes
from layerpick.probes.run import run_probe
from layerpick.probes.trials.on_policy import (
    JUDGING,
    STATISTICS,
    TRAINING,
    OnPolicyProbe,
    chosen_steps,
    curve,
    on_policy_rate,
    on_policy_settings,
)
from layerpick.training.engine.loop import step_seed
from layerpick.training.engine.policies import BASE_STREAM, FIRST_LAYER_STREAM, TrainedCopy
from layerpick.training.episodes.play import SamplingSettings, play
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import load_model
from layerpick.training.tasks.base import TaskSettings
from layerpick.training.tasks.table import make_task

RATE = 3e-3
FEW = ProbeSizes(
    on_policy_steps=(5,),
    on_policy_stride=1.0,
    on_policy_episodes=16,
    judged_prompts=6,
    judged_samples=2,
)
SAMPLING = SamplingSettings(4, temperature=0.8, rows=1000)
REWARD = (
    "def early(completions, **columns):\n"
    "    return [sum(ord(c) < 100 for c in text) / (len(text) + 1) for text in completions]\n"
)


@pytest.fixture
def make(make_probe_input, tmp_path):
    """`make(model)`: a probe input whose reward is easily raised."""
    path = tmp_path / "reward.py"
    path.write_text(REWARD)
    dataset = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"
    task = make_task("math", TaskSettings(dataset, "{expression} =", reward=f"{path}:early"))

    def build(model, sizes=FEW, **rollouts):
        probe_input = make_probe_input(model, sizes=sizes, learning_rate=RATE, **rollouts)
        return dataclasses.replace(probe_input, task=task, sampling=SAMPLING)

    return build


def log_probs(model, trajectory) -> torch.Tensor:
    """(written tokens,), float64: no padding, no packing."""
    logits = model(input_ids=torch.tensor([trajectory.tokens])).logits[0].double()
    every = torch.log_softmax(logits / SAMPLING.temperature, -1)
    places = np.flatnonzero(trajectory.model_mask)
    return torch.stack([every[p - 1, trajectory.tokens[p]] for p in places])


def plain(probe_input, layer: int, steps: int) -> dict[str, float]:
    """Train a copy of the model in which one layer learns; sample, judge and measure it."""
    loaded = dataclasses.replace(probe_input.model, model=copy.deepcopy(probe_input.model.model))
    prefix = probe_input.model.layers.prefix(layer)
    own = [p for name, p in loaded.model.named_parameters() if name.startswith(prefix)]
    for parameter in own:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(own, RATE, weight_decay=0.0)
    size, stream = probe_input.rollouts.origin.group_size, FIRST_LAYER_STREAM + layer

    def sample(model, prompts, samples, seed, stream):
        return play(
            model, probe_input.task, prompts, samples, SAMPLING, seed=seed, streams=(stream,)
        )

    rewards = []
    for step in range(steps):
        seed = step_seed(step_seed(probe_input.seed, TRAINING), step)
        prompts = probe_input.task.prompts("train", 16 // size, seed)
        episodes = sample(loaded, prompts, size, seed, stream)
        rewards.append(np.mean([episode.reward for episode in episodes]))
        loss = 0
        for start in range(0, len(episodes), size):
            group = episodes[start : start + size]
            for episode, turns in zip(group, probe_input.algorithm.advantages(group), strict=True):
                likelihood = log_probs(loaded.model, episode)
                ratio = (likelihood - likelihood.detach()).exp()
                weight = probe_input.algorithm.token_weight(episode.generated, 4)
                loss = loss - weight * float(turns[0]) * ratio.sum() / len(episodes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    seed = step_seed(probe_input.seed, JUDGING)
    prompts = probe_input.task.prompts("train", FEW.judged_prompts, seed)
    after = sample(loaded, prompts, FEW.judged_samples, seed, stream)
    before = sample(probe_input.model, prompts, FEW.judged_samples, seed, BASE_STREAM)
    by_prompt = [
        np.array([e.reward for e in episodes]).reshape(FEW.judged_prompts, -1).mean(1)
        for episodes in (after, before)
    ]
    gains = by_prompt[0] - by_prompt[1]
    with torch.no_grad():
        differences = [
            log_probs(loaded.model, e) - log_probs(probe_input.model.model, e) for e in after
        ]
        kl = np.mean([float((torch.exp(-d) - 1 + d).sum()) for d in differences])
        old = torch.cat([p.flatten() for p in probe_input.model.layers[layer].parameters()])
        moved = torch.cat([p.flatten() for p in own]) - old
    half = rewards[steps // 2 :]
    return {
        "level": np.mean(half) - probe_input.rollouts.mean_reward,
        "slope": np.cov(np.arange(steps), rewards)[0, 1] / np.var(np.arange(steps), ddof=1),
        "gain": gains.mean(),
        "gain_error": gains.std(ddof=1) / len(gains) ** 0.5,
        "weight_change": float(moved.norm() / old.norm()),
        "kl": kl,
        "gain_per_kl": gains.mean() / kl**0.5,
    }


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_features_equal_those_of_plain_training(make, tiny, family):
    probe_input = make(tiny(family))
    found = OnPolicyProbe().measure(probe_input).features
    for layer in (0, 2):
        for name, expected in plain(probe_input, layer, 5).items():
            # Adam turns rounding of near-zero gradients into whole steps.
            assert found[f"warm_up_5_{name}"][layer] == pytest.approx(
                expected, rel=0.03, abs=1e-6
            ), (layer, name)


def test_several_numbers_of_steps_share_one_run(make, tiny):
    model = tiny("llama")
    short, long = make(model), make(model, dataclasses.replace(FEW, on_policy_steps=(5, 10)))
    done = []
    first, both = OnPolicyProbe().measure(short), OnPolicyProbe().measure(long, done.append)
    assert set(both.features) == {f"warm_up_{n}_{name}" for n in (5, 10) for name in STATISTICS}
    for name, values in first.features.items():
        assert both.features[name].tolist() == values.tolist()
    assert (both.features["warm_up_10_kl"] > both.features["warm_up_5_kl"]).any()
    assert sum(done) == OnPolicyProbe().ticks(long) == 10 + 1 + 2


def test_rewards_that_can_be_raised_are(make, tiny):
    sizes = ProbeSizes(
        on_policy_steps=(20,), on_policy_episodes=64, judged_prompts=64, judged_samples=16
    )
    probe_input = dataclasses.replace(make(tiny("qwen3"), sizes), learning_rate=2.5e-3)
    features = OnPolicyProbe().measure(probe_input).features
    gain, error = features["warm_up_20_gain"], features["warm_up_20_gain_error"]
    assert (gain > 3 * error).any() and (features["warm_up_20_slope"] > 0).any()
    assert features["warm_up_20_gain_per_kl"] == pytest.approx(
        gain / features["warm_up_20_kl"] ** 0.5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_warms_up_and_stays_as_it_was(make, tiny, family, dtype):
    model = tiny(family)
    model.model.to(dtype)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    result = run_probe(OnPolicyProbe(), make(model))
    assert result.failure is None
    assert set(result.features) == {f"warm_up_5_{name}" for name in STATISTICS}
    assert all(np.isfinite(values).all() for values in result.features.values())
    assert (result.features["warm_up_5_weight_change"] > 0).all()
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(p.requires_grad or p.grad is not None for p in model.model.parameters())


def test_the_cost_counts_what_was_read_and_written(make, tiny):
    """Every turn is as long as it may be unless it ends: tokens are bounded from both sides."""
    cost = run_probe(OnPolicyProbe(), make(tiny("gpt2"))).cost
    episodes = 3 * 5 * 16 + (3 + 1) * 6 * 2
    assert episodes <= cost.sampled_tokens <= 4 * episodes
    assert cost.tokens > cost.sampled_tokens
    assert run_probe(OnPolicyProbe(), make(tiny("gpt2"))).cost.tokens == cost.tokens


def test_no_training_step_and_no_sweep_shares_its_prompts_with_the_judge(make, tiny):
    probe_input = make(tiny("gpt2"))
    training, judging = (step_seed(probe_input.seed, which) for which in (TRAINING, JUDGING))
    used = [step_seed(seed, step) for seed in (probe_input.seed, training) for step in range(60)]
    assert len({judging, training, *used}) == 122


def test_curves_by_hand():
    found = curve([0.1, 0.2, 0.6, 0.5], base=0.25)
    assert found["level"] == pytest.approx(0.55 - 0.25)
    assert found["slope"] == pytest.approx(0.16)  # Σ (t − 1.5) r / 5
    # Residuals 0.01, −0.05, 0.19 … by the line 0.11 + 0.16 t
    residuals = np.array([0.1, 0.2, 0.6, 0.5]) - (0.11 + 0.16 * np.arange(4))
    assert found["slope_error"] == pytest.approx(((residuals**2).sum() / 2 / 5) ** 0.5)
    level = curve([0.3] * 5, base=0.3)
    assert list(level.values()) == pytest.approx([0, 0, 0], abs=1e-12)


def test_steps_are_chosen_among_those_that_features_name():
    assert chosen_steps("10") == (10,) and chosen_steps("20, 5,20") == (5, 20)
    for wrong in ("", "7", "5,", "-5", "five", "5;10"):
        with pytest.raises(LayerpickError, match=r"--warmup-steps .* one or more of 5, 10, 20"):
            chosen_steps(wrong)
    listed = {info.name for info in OnPolicyProbe.features}
    assert {f"warm_up_{n}_{name}" for n in (5, 10, 20) for name in STATISTICS} == listed


def test_what_makes_it_impossible_is_said(make, make_probe_input, tiny, monkeypatch):
    model = tiny("qwen3")
    assert "needs the task" in run_probe(OnPolicyProbe(), make_probe_input(model)).failure
    made = TrainedCopy.__init__

    def broken(self, original):
        made(self, original)
        if original is model.layers[1]:
            weight = next(iter(self.trained.values()))
            weight.register_hook(lambda gradient: gradient * float("nan"))

    monkeypatch.setattr(TrainedCopy, "__init__", broken)
    failure = run_probe(OnPolicyProbe(), make(model)).failure
    assert failure == "The training of layer 1 broke: the gradient of step 0 is not finite."


def test_groups_are_as_large_as_the_rollouts(make, tiny):
    probe_input = make(tiny("gpt2"), ProbeSizes())
    settings = on_policy_settings(probe_input)
    assert (settings.steps, settings.prompts, settings.group_size) == (5, 16, 4)
    assert on_policy_rate(probe_input) == pytest.approx(4 * RATE)


@pytest.mark.real
@pytest.mark.slow
def test_a_real_model_warms_up(make, smollm2):
    sizes = ProbeSizes(
        on_policy_steps=(3,), on_policy_episodes=2, judged_prompts=2, judged_samples=1
    )
    probe_input = make(load_model(smollm2, device="cpu"), sizes, size=2)
    result = run_probe(OnPolicyProbe(), dataclasses.replace(probe_input, learning_rate=1e-5))
    assert result.failure is None and set(result.features) == {
        f"warm_up_3_{name}" for name in STATISTICS
    }
    for values in result.features.values():
        assert values.shape == (30,) and np.isfinite(values).all()


def test_only_the_candidates_are_trained(make, tiny):
    probe_input = make(tiny("llama"))
    some = dataclasses.replace(probe_input, candidates=(0, 2))
    everything, found = OnPolicyProbe().measure(probe_input), OnPolicyProbe().measure(some)
    for name, values in found.features.items():
        assert np.isnan(values[1])
        assert values[[0, 2]] == pytest.approx(everything.features[name][[0, 2]], rel=0.03)
    assert found.sampled_tokens < everything.sampled_tokens
    assert run_probe(OnPolicyProbe(), some).features.keys() == found.features.keys()
