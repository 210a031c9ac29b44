"""The multiplexed engine against the same policies trained alone, and against TRL's loss."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.batches.padded import collate, token_log_probs, token_values
from layerpick.training.engine.learner import Learner, lessons_of
from layerpick.training.engine.loop import step_seed, train
from layerpick.training.engine.policies import FIRST_LAYER_STREAM, FullPolicy
from layerpick.training.engine.stacked import SingleLayerPolicies
from layerpick.training.episodes.play import SamplingSettings, play
from layerpick.training.settings import RlSettings
from layerpick.training.tasks.base import (
    Episodes,
    Prompt,
    SingleTurnTask,
    StepResult,
    Task,
    TaskSettings,
)

MEASURED = ["qwen3", "llama", "gemma3_text", "gpt2", "gpt_neox"]
SAMPLING = SamplingSettings(6, temperature=1.3, stop=("a", "e"), rows=1000)
EPSILON, BETA, TEMPERATURE = 0.2, 0.05, 1.3
RATE = 2e-4
# A loss is a sum of numbers near 1 that nearly cancel.
ROUNDING = 2e-7


class Vowels(SingleTurnTask):
    """Rewards the share of characters that come early in the alphabet of bytes."""

    def prompts(self, split, count, seed):
        lengths = np.random.default_rng([seed, split == "train"]).integers(3, 12, count)
        return tuple(Prompt("the quick fox"[:length], {}, f"row {length}") for length in lengths)

    def rewards(self, prompts, completions):
        return [sum(ord(c) % 3 for c in text) / (len(text) + 1) for text in completions]

    source = "vowels"

    def fingerprint(self):
        return "vowels"


class Talk(Task):
    """Three turns; the reward of a turn is the parity of its length."""

    max_turns = 3
    source = "talk"
    prompts = Vowels.prompts
    fingerprint = Vowels.fingerprint

    def open(self, prompts):
        class Talking(Episodes):
            turns = np.zeros(len(prompts), dtype=int)

            def step(self, actions):
                results = {}
                for i, text in actions.items():
                    self.turns[i] += 1
                    done = self.turns[i] == 1 + i % 3
                    results[i] = StepResult(len(text) % 2, done, f"[{len(text)}]" * (not done))
                return results

        return Talking()


def sampled(policies, task, seed=0, prompts=3, group=4):
    """Each policy's episodes in groups."""
    rows = task.prompts("train", prompts, seed)
    episodes = play(
        policies.model,
        task,
        rows,
        group,
        SAMPLING,
        seed=seed,
        streams=policies.streams,
        make_decoder=policies.decoder,
    )
    groups = [episodes[i : i + group] for i in range(0, len(episodes), group)]
    return [groups[i * prompts : (i + 1) * prompts] for i in range(len(policies))]


def with_layer(model, layer):
    """A separate model in which one layer alone can be trained."""
    network = copy.deepcopy(model.model)
    modules = dict(network.named_modules())[model.layers.path]
    modules[layer].requires_grad_(True)
    return network, modules[layer]


def plain_loss(network, base, groups, algorithm, task, old=None):
    """The objective on one padded batch, one row per trajectory, as the papers write it."""
    trajectories = [episode for group in groups for episode in group]
    batch = collate(trajectories, 0, torch.device("cpu"))
    advantages = [turns for group in groups for turns in algorithm.advantages(group)]
    spread = token_values(trajectories, advantages, batch)
    longest = SAMPLING.max_new_tokens * task.max_turns
    weights = torch.tensor([algorithm.token_weight(t.generated, longest) for t in trajectories])
    log_probs = token_log_probs(network, batch, TEMPERATURE)
    reference = token_log_probs(base, batch, TEMPERATURE).detach()
    ratio = torch.exp(log_probs - (log_probs.detach() if old is None else old))
    clipped = torch.clamp(ratio, 1 - EPSILON, 1 + EPSILON)
    loss = -torch.minimum(ratio * spread, clipped * spread)
    loss = loss + BETA * ratio * (torch.exp(reference - log_probs) - (reference - log_probs) - 1)
    return (weights[:, None] * loss * batch.written).sum() / len(trajectories)


def relative(ours, expected):
    """Largest distance over norm among pairs of tensors that belong together."""
    ours, expected = list(ours), list(expected)
    distance = sum(
        float((a - b).detach().square().sum()) for a, b in zip(ours, expected, strict=True)
    )
    return (distance / sum(float(b.detach().square().sum()) for b in expected)) ** 0.5


@pytest.mark.parametrize("task", [Vowels, Talk])
@pytest.mark.parametrize("name", MEASURED)
def test_gradients_and_losses_are_those_of_policies_alone(tiny, name, task):
    model, task = tiny(name), task(TaskSettings())
    algorithm = make_algorithm("gigpo" if task.max_turns > 1 else "grpo")
    policies = SingleLayerPolicies(model, range(3))
    scatter(policies)
    groups = sampled(policies, task)
    longest = SAMPLING.max_new_tokens * task.max_turns
    lessons = [lesson for k in range(3) for lesson in lessons_of(k, groups[k], algorithm, longest)]
    settings = RlSettings(epsilon=EPSILON, beta=BETA)
    losses = Learner(policies, settings, 1e-3, TEMPERATURE, model, chunk_tokens=150).gradients(
        lessons
    )
    for k in range(3):
        network, layer = with_layer(model, k)
        adopt(layer, policies.copies[k])
        loss = plain_loss(network, model.model, groups[k], algorithm, task)
        loss.backward()
        assert losses[k] == pytest.approx(loss.item(), rel=1e-5, abs=ROUNDING)
        expected = [parameter.grad for parameter in layer.parameters()]
        assert relative((p.grad for p in policies.parameters(k)), expected) < 1e-5


def scatter(policies):
    """Move policies away from the base and from each other."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for policy in range(len(policies)):
            for parameter in policies.parameters(policy):
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def adopt(layer, trained):
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(trained.trained[name])


@pytest.mark.parametrize("name", MEASURED)
def test_five_steps_give_the_weights_of_separate_runs(tiny, name):
    model, task, algorithm = tiny(name), Vowels(TaskSettings()), make_algorithm("grpo")
    settings = RlSettings(5, 3, 4, EPSILON, BETA)
    policies = SingleLayerPolicies(model, range(3))
    runs = train(policies, model, task, algorithm, SAMPLING, settings, RATE, seed=5)
    for k in range(3):
        network, layer = with_layer(model, k)
        rewards = train_plainly(model, network, layer, FIRST_LAYER_STREAM + k, task, algorithm)
        assert runs[k].rewards == pytest.approx(rewards)
        ours, alone = policies.copies[k].trained, dict(layer.named_parameters())
        assert relative(*map(without_key_bias, (ours, alone))) < 1e-5


@pytest.mark.parametrize(("name", "task"), [("qwen3", Vowels), ("gemma3_text", Talk)])
def test_policies_of_one_layer_at_several_rates_are_their_separate_runs(tiny, name, task):
    model, task = tiny(name), task(TaskSettings())
    algorithm = make_algorithm("gigpo" if task.max_turns > 1 else "grpo")
    layers, rates = (0, 1, 1, 1, 2, 2), (RATE, RATE, 4 * RATE, 2 * RATE, 4 * RATE, RATE)
    policies = SingleLayerPolicies(model, layers)
    settings = RlSettings(5, 3, 4, EPSILON, BETA)
    runs = train(policies, model, task, algorithm, SAMPLING, settings, rates, seed=5)
    for policy, (layer, rate) in enumerate(zip(layers, rates, strict=True)):
        network, own = with_layer(model, layer)
        stream = FIRST_LAYER_STREAM + layer
        rewards = train_plainly(model, network, own, stream, task, algorithm, rate)
        assert runs[policy].rewards == pytest.approx(rewards)
        assert relative(policies.parameters(policy), own.parameters()) < 1e-5
    apart = [relative(policies.parameters(1), policies.parameters(other)) for other in (2, 3)]
    assert min(apart) > 1e-4


def without_key_bias(parameters):
    """A layer's parameters, by name, but for the bias of its attention keys.

    It changes no attention, so its gradient is nothing but rounding, which Adam makes steps of.
    """
    for name, parameter in parameters.items():
        if name == "attn.c_attn.bias":  # queries, keys, values
            parameter = parameter.view(3, -1)[[0, 2]]
        if name == "attention.query_key_value.bias":  # the three of each of four heads
            parameter = parameter.view(4, 3, -1)[:, [0, 2]]
        yield parameter


def train_plainly(model, network, trained, stream, task, algorithm, rate=RATE):
    """Five GRPO steps in a bare loop, with the same sampling noise."""
    optimizer = torch.optim.AdamW(trained.parameters(), rate, weight_decay=0.0)
    rewards = []
    for step in range(5):
        seed = step_seed(5, step)
        prompts = task.prompts("train", 3, seed)
        acting = replace(model, model=network)
        episodes = play(acting, task, prompts, 4, SAMPLING, seed=seed, streams=[stream])
        rewards.append(np.mean([episode.reward for episode in episodes]))
        groups = [episodes[i : i + 4] for i in range(0, 12, 4)]
        plain_loss(network, model.model, groups, algorithm, task).backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return rewards


def test_the_full_policy_trains_every_parameter(tiny):
    model, task, algorithm = tiny("llama"), Vowels(TaskSettings()), make_algorithm("dr_grpo")
    settings = RlSettings(5, 3, 4, EPSILON, BETA)
    policy = FullPolicy(model)
    (run,) = train(policy, model, task, algorithm, SAMPLING, settings, RATE, seed=5)
    network = copy.deepcopy(model.model).requires_grad_(True)
    rewards = train_plainly(model, network, network, policy.streams[0], task, algorithm)
    assert run.rewards == pytest.approx(rewards)
    assert relative(policy.parameters(0), network.parameters()) < 1e-5
    assert relative(policy.parameters(0), model.model.parameters()) > 1e-4


def test_old_log_probs_clip_the_ratio(tiny):
    model, task, algorithm = tiny("qwen3"), Vowels(TaskSettings()), make_algorithm("grpo")
    policies = SingleLayerPolicies(model, [1])
    (groups,) = sampled(policies, task)
    learner = Learner(policies, RlSettings(epsilon=EPSILON, beta=BETA), 1e-3, TEMPERATURE, model)
    fresh = lessons_of(0, groups, algorithm, 6)
    before = [values for _, values in learner.log_probs(fresh)]
    scatter(policies)
    (loss,) = learner.gradients(lessons_of(0, groups, algorithm, 6, before))
    network, layer = with_layer(model, 1)
    adopt(layer, policies.copies[0])
    batch = collate([t for group in groups for t in group], 0, torch.device("cpu"))
    old = token_log_probs(model.model, batch, TEMPERATURE).detach()
    expected = plain_loss(network, model.model, groups, algorithm, task, old)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5, abs=ROUNDING)
    assert (
        relative((p.grad for p in policies.parameters(0)), (p.grad for p in layer.parameters()))
        < 1e-5
    )


def test_policies_that_break_are_stopped_alone(tiny):
    model, task, algorithm = tiny("gpt2"), Vowels(TaskSettings()), make_algorithm("grpo")
    settings = RlSettings(3, 3, 4)
    unharmed = SingleLayerPolicies(model, [0])
    train(unharmed, model, task, algorithm, SAMPLING, settings, 1e-3, seed=1)
    policies = SingleLayerPolicies(model, range(3))
    policies.parameters(1)[0].register_hook(lambda gradient: gradient * float("nan"))
    with torch.no_grad():  # writes nothing but padding, which earns no gradient
        policies.parameters(2)[0].fill_(float("nan"))
    runs = train(policies, model, task, algorithm, SAMPLING, settings, 1e-3, seed=1)
    assert runs[0].failure is None and len(runs[0].rewards) == 3
    assert "gradient of step 0" in runs[1].failure and len(runs[1].rewards) == 1
    assert "weights" in runs[2].failure
    harmed, alone = (each.copies[0].trained for each in (policies, unharmed))
    assert relative(*map(without_key_bias, (harmed, alone))) < 1e-5


@pytest.mark.parametrize("name", ["grpo", "dr_grpo"])
def test_the_loss_is_trls(tiny, tmp_path, name):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model, task, algorithm = tiny("llama"), Vowels(TaskSettings()), make_algorithm(name)
    policies = SingleLayerPolicies(model, [2])
    (groups,) = sampled(policies, task)
    learner = Learner(policies, RlSettings(epsilon=EPSILON, beta=BETA), 1e-3, TEMPERATURE, model)
    longest = SAMPLING.max_new_tokens
    before = [v for _, v in learner.log_probs(lessons_of(0, groups, algorithm, longest))]
    scatter(policies)
    (loss,) = learner.gradients(lessons_of(0, groups, algorithm, longest, before))
    network, layer = with_layer(model, 2)
    adopt(layer, policies.copies[0])
    config = GRPOConfig(
        output_dir=str(tmp_path),
        loss_type=name,
        epsilon=EPSILON,
        beta=BETA,
        temperature=TEMPERATURE,
        max_completion_length=SAMPLING.max_new_tokens,
        num_generations=4,
        per_device_train_batch_size=4,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
    )
    trainer = GRPOTrainer(
        network,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=model.tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.eval()
    trainer.model.requires_grad_(False)
    layer.requires_grad_(True)
    expected = trainer._compute_loss(network, trl_inputs(model, groups, algorithm))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5, abs=ROUNDING)
    assert (
        relative((p.grad for p in policies.parameters(0)), (p.grad for p in layer.parameters()))
        < 1e-5
    )


def trl_inputs(model, groups, algorithm):
    """A batch in the form that TRL's loss takes."""
    trajectories = [episode for group in groups for episode in group]
    batch = collate(trajectories, 0, torch.device("cpu"))
    context = batch.input_ids.shape[1] - batch.columns
    advantages = [turns[0] for group in groups for turns in algorithm.advantages(group)]
    with torch.no_grad():
        reference = token_log_probs(model.model, batch, TEMPERATURE)
    return {
        "prompt_ids": batch.input_ids[:, :context],
        "prompt_mask": batch.attention_mask[:, :context],
        "completion_ids": batch.targets,
        "completion_mask": batch.written.long(),
        "advantages": torch.tensor(np.array(advantages), dtype=torch.float32),
        "ref_per_token_logps": reference,
        "old_per_token_logps": reference,  # the untrained policy sampled
    }
