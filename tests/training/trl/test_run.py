"""Our trainers against plain TRL, against the multiplexed engine, and by hand."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from layerpick.training.engine.loop import train as train_multiplexed
from layerpick.training.engine.policies import FullPolicy
from layerpick.training.engine.stacked import SingleLayerPolicies
from layerpick.training.errors import LayerpickError, NoSignalError
from layerpick.training.models.freezing import freeze
from layerpick.training.runs.checkpoint import latest_checkpoint
from layerpick.training.runs.folder import RunFolder
from layerpick.training.runs.rules import NotFiniteError
from layerpick.training.trl.run import TrlSettings, make_config, make_trainer, train

OWN = Path(__file__).parents[3] / "examples" / "own_algorithm.py"
ONE = TrlSettings(layers=(1,), learning_rate=1e-3)


def relative(ours, expected):
    difference = sum(
        float((a - b).detach().square().sum()) for a, b in zip(ours, expected, strict=True)
    )
    return math.sqrt(difference / sum(float(b.detach().square().sum()) for b in expected))


def prepared(bench, folder, settings=ONE):
    """A trainer whose first step is about to begin."""
    trainable = freeze(bench.model, settings.layers)
    RunFolder(folder).begin(0)
    return make_trainer(bench, settings, trainable, RunFolder(folder)), trainable


def plain_trl(bench, network, folder):
    from datasets import Dataset
    from trl import GRPOTrainer

    trainer = GRPOTrainer(
        network,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=make_config(bench, ONE, str(folder / "plain")),
        train_dataset=Dataset.from_dict({"prompt": ["a"] * 4}),
        processing_class=bench.model.tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_loss_and_gradients_are_trls(tiny, make_bench, tmp_path, family, algorithm):
    """One batch, with a ratio that clips and a KL penalty; ours in two micro-batches."""
    bench = make_bench(tiny(family), algorithm, beta=0.05)
    ours, trainable = prepared(bench, tmp_path)
    batch = ours._generate_and_score_completions([])
    batch["old_per_token_logps"] = batch["ref_per_token_logps"]  # the untrained model sampled
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable.parameters.values():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.5 * parameter.abs().mean() * noise
    network = tiny(family).model
    network.load_state_dict({**network.state_dict(), **trainable.parameters})
    network.requires_grad_(False)
    theirs = plain_trl(bench, network, tmp_path)
    assert theirs.ref_model is not None, "TRL measures the KL from a second model"
    tokens = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    columns = batch["completion_ids"].shape[1]
    with torch.no_grad():
        reference = theirs._get_per_token_logps_and_entropies(
            theirs.ref_model, tokens, mask, columns
        )[0]
    written = batch["completion_mask"].bool()
    assert torch.allclose(reference[written], batch["ref_per_token_logps"][written], atol=1e-5)
    own = {n: p for n, p in network.named_parameters() if n in trainable.parameters}
    for parameter in own.values():
        parameter.requires_grad_(True)
    expected = theirs._compute_loss(network, {**batch, "ref_per_token_logps": reference})
    expected.backward()
    assert theirs._metrics["train"]["clip_ratio/region_mean"][0] > 0
    ours.model.train()
    loss = ours._gradient(ours.model, batch, parts=2)
    # The terms nearly cancel: rounding is measured by their sum without signs.
    unsigned = {**batch, "ref_per_token_logps": reference, "advantages": -batch["advantages"].abs()}
    size = theirs._compute_loss(network, unsigned).item()
    assert float(loss) == pytest.approx(expected.item(), abs=1e-5 * size)
    gradients = [p.grad for p in trainable.parameters.values()]
    assert relative(gradients, [p.grad for p in own.values()]) < 1e-5


@pytest.mark.parametrize(
    ("algorithm", "family", "layers"),
    [
        ("grpo", "llama", (1,)),
        ("dr_grpo", "gpt2", (2,)),
        ("grpo", "qwen3", None),
        (f"{OWN}:Rloo", "llama", (1,)),
    ],
)
def test_a_run_is_the_multiplexed_engines_run(
    tiny, make_bench, tmp_path, algorithm, family, layers
):
    """Same prompts, noise, advantages, losses, clipping, optimizer: same weights."""
    beta = 0.0 if algorithm.startswith(str(OWN)) else 0.02  # a KL penalty keeps TRL's weights
    bench = make_bench(tiny(family), algorithm, beta=beta)
    policies = (
        FullPolicy(bench.model) if layers is None else SingleLayerPolicies(bench.model, layers)
    )
    (run,) = train_multiplexed(
        policies,
        bench.model,
        bench.task,
        bench.algorithm,
        bench.sampling,
        bench.settings,
        2e-4,
        seed=3,
    )
    bench = make_bench(tiny(family), algorithm, beta=beta)
    before = {name: p.clone() for name, p in bench.model.model.named_parameters()}
    folder = RunFolder(tmp_path)
    train(bench, TrlSettings(layers, 2e-4, seed=3), folder)
    after = dict(bench.model.model.named_parameters())
    prefix = "" if layers is None else bench.model.layers.prefix(layers[0])
    moved = [after[prefix + name] - before[prefix + name] for name in policies.copies[0].trained]
    expected = [p - before[prefix + n] for n, p in policies.copies[0].trained.items()]
    # A bias of attention keys has no gradient but rounding, which Adam turns into steps.
    assert relative(moved, expected) < (0.2 if family == "gpt2" else 0.02)
    rewards = [step.values["reward"] for step in folder.metrics()]
    assert rewards == pytest.approx(run.rewards, abs=1e-6)


def test_a_run_leaves_the_model_as_it_was_but_for_the_layer(tiny, make_bench, tmp_path):
    model = tiny("llama")
    forward = model.model.forward.__func__
    before = {name: p.clone() for name, p in model.model.named_parameters()}
    folder = RunFolder(tmp_path)
    cost = train(make_bench(model), ONE, folder)
    for name, parameter in model.model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == name.startswith(model.layers.prefix(1)), name
    assert model.model.forward.__func__ is forward and not model.model.training
    assert not any(p.requires_grad for p in model.model.parameters())
    assert cost.trainable_parameters == model.layers.parameter_count(1)
    assert cost.steps == 3 and cost.sampling_seconds > 0 and cost.update_seconds > 0
    assert [step.step for step in folder.metrics()] == [1, 2, 3]


def test_bfloat16_runs(tiny, make_bench, tmp_path):
    model = tiny("llama")
    model.model.bfloat16()
    before = {name: p.clone() for name, p in model.model.named_parameters()}
    for run in ("first", "second"):  # of a sweep, on the same model
        train(make_bench(model, beta=0.1), ONE, RunFolder(tmp_path / run))
    changed = [n for n, p in model.model.named_parameters() if not torch.equal(p, before[n])]
    assert changed and all(name.startswith(model.layers.prefix(1)) for name in changed)
    assert {p.dtype for p in model.model.parameters()} == {torch.bfloat16}


def test_gradient_checkpointing_saves_memory_and_changes_nothing(tiny, make_bench, tmp_path):
    weights = []
    for checkpointing in (False, True):
        model, passes = tiny("qwen3"), [0, 0, 0]

        def count(module, args, number, passes=passes):
            passes[number] += torch.is_grad_enabled()

        for number, layer in enumerate(model.layers):
            layer.mlp.register_forward_pre_hook(partial(count, number=number))
        settings = TrlSettings((1,), 1e-3, gradient_checkpointing=checkpointing)
        train(make_bench(model, steps=2), settings, RunFolder(tmp_path / str(checkpointing)))
        weights.append([p.clone() for p in model.layers[1].parameters()])
        # The layer below is run once in each of the two steps, without a graph.
        assert passes == ([2, 4, 4] if checkpointing else [2, 2, 2])
    assert relative(*weights) < 1e-6


def test_gigpo_by_hand(tiny, make_bench, tmp_path, scripted):
    """Two episodes share state A, then part: the first earns 1 in its second turn."""
    bench = make_bench(tiny("llama"), "gigpo", task=scripted, group_size=2, prompts=3)
    trainer, _ = prepared(bench, tmp_path)
    batch = trainer._generate_and_score_completions([])
    outer = 0.5 / (math.sqrt(0.5) + 1e-4)
    inner = 0.475 / (0.95 / math.sqrt(2) + 1e-4)  # returns 0.95 and 0 from state A
    columns = batch["completion_ids"].shape[1]
    for row, episode in enumerate(trainer.episodes):
        sign = 1 if row % 2 == 0 else -1
        expected = np.zeros(columns)
        first, second = episode.turns
        origin = episode.prompt_length
        expected[first.start - origin : first.end - origin] = sign * (outer + inner)
        expected[second.start - origin : second.end - origin] = sign * outer
        assert batch["advantages"][row].numpy() == pytest.approx(expected, abs=1e-5)
        # What the world wrote is not in the loss.
        mask = (batch["completion_mask"] * batch["tool_mask"])[row].bool().numpy()
        assert (mask == (expected != 0)).all()
    assert trainer._metrics["train"]["signal"] == [1.0]


def test_gigpo_runs(tiny, make_bench, tmp_path, scripted):
    """Its loss is TRL's with advantages by token: the engine's run gives the same weights."""
    bench = make_bench(tiny("llama"), "gigpo", task=scripted, group_size=2)
    policies = SingleLayerPolicies(bench.model, [1])
    train_multiplexed(
        policies,
        bench.model,
        bench.task,
        bench.algorithm,
        bench.sampling,
        bench.settings,
        1e-3,
        seed=0,
    )
    bench = make_bench(tiny("llama"), "gigpo", task=scripted, group_size=2)
    train(bench, ONE, RunFolder(tmp_path))
    ours = dict(bench.model.layers[1].named_parameters())
    expected = policies.copies[0].trained
    base = dict(tiny("llama").layers[1].named_parameters())
    assert (
        relative([ours[n] - base[n] for n in expected], [expected[n] - base[n] for n in expected])
        < 0.02
    )


class OutOfMemory:
    """Makes a layer's training passes of more than `rows` rows run out of memory."""

    def __init__(self, layer, rows):
        self.rows, self.refused = rows, 0
        layer.register_forward_hook(self)

    def __call__(self, module, args, output):
        if torch.is_grad_enabled() and args[0].shape[0] > self.rows:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")


def test_a_micro_batch_that_does_not_fit_is_halved(tiny, make_bench, tmp_path):
    whole = tiny("llama")
    train(make_bench(whole), ONE, RunFolder(tmp_path / "whole"))
    tight, notes = tiny("llama"), []
    memory = OutOfMemory(tight.layers[2], 4)
    train(make_bench(tight), ONE, RunFolder(tmp_path / "tight"), note=notes.append)
    assert memory.refused == 2  # 16 rows, then 8; afterwards it is known
    assert notes == [
        f"Out of memory: the micro-batch is halved to {n} rows and tried again." for n in (8, 4)
    ]
    assert relative(tight.layers[1].parameters(), list(whole.layers[1].parameters())) < 1e-5


def test_a_single_row_that_does_not_fit_is_said(tiny, make_bench, tmp_path):
    model = tiny("llama")
    OutOfMemory(model.layers[2], 0)
    with pytest.raises(LayerpickError, match="does not fit into memory even with a micro-batch"):
        train(make_bench(model), ONE, RunFolder(tmp_path))


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_what_was_learned(
    tiny, make_bench, tmp_path
):
    model, folder = tiny("llama"), RunFolder(tmp_path)
    settings = TrlSettings((1,), 1e-3, checkpoint_every=100)
    poisoned = []

    def poison(step):
        """After two steps the final norm, which is frozen, becomes infinite."""
        if step and len(folder.metrics()) == 1 and not poisoned:
            poisoned.append(model.model.model.norm.weight.data.fill_(math.inf))

    with pytest.raises(NotFiniteError, match=r"step 2 is nan: the 2 steps before it are kept in"):
        train(make_bench(model, steps=5), settings, folder, on_step=poison)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.step == 2
    two = tiny("llama")
    train(make_bench(two, steps=2), settings, RunFolder(tmp_path / "two"))
    kept = list(model.layers[1].parameters())
    assert all(map(torch.equal, kept, two.layers[1].parameters()))


def test_a_reward_that_never_differs_is_said(tiny, make_bench, tmp_path):
    bench = make_bench(tiny("llama"))
    bench.task.rewards = lambda prompts, completions: [0.25] * len(completions)
    with pytest.raises(NoSignalError, match=r"In 3 steps no group's .* \(mean reward 0.25\)"):
        train(bench, ONE, RunFolder(tmp_path))


def test_trls_own_generation_asks_and_stops_as_ours_does(tiny, make_bench, tmp_path):
    """With a sampling option of TRL's, its generation runs on our prompts and ends at our stops."""
    bench = make_bench(tiny("llama"))
    settings = TrlSettings((1,), 1e-3, trl={"top_k": 40})
    trainer, _ = prepared(bench, tmp_path, settings)
    batch = trainer._generate_and_score_completions([])
    asked = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    ]
    decode = partial(bench.model.tokenizer.decode, skip_special_tokens=True)
    assert [decode(ids) for ids in asked] == [prompt.content for prompt in trainer._asked]
    texts = [
        decode(ids[mask.bool()])
        for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    for text in texts:
        assert not any(stop in text[:-1] for stop in "ae")
    cut = [text.rstrip("ae") for text in texts]
    rewards = torch.tensor(bench.task.rewards((), cut)).reshape(-1, 4)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    expected = centred / (rewards.std(dim=1, keepdim=True) + 1e-4)
    assert torch.allclose(batch["advantages"].reshape(-1, 4), expected, atol=1e-4)
