"""A race's arms are the engine's ordinary runs; what was killed goes on as if it had not been."""

from __future__ import annotations

import pytest
import torch

from layerpick.training.engine.loop import train
from layerpick.training.engine.race import Arm, RaceDescription, train_arms
from layerpick.training.engine.stacked import SingleLayerPolicies
from layerpick.training.errors import LayerpickError, NoSignalError

LAYERS, STEPS = (0, 1, 2), 6


def described(bench, rungs=(2, 4)):
    arms = tuple(Arm(layer=layer, learning_rate=1e-3) for layer in LAYERS)
    settings = bench.run_settings("multiplexed")
    return RaceDescription(settings=settings, arms=arms, rungs=rungs, judged_by="test", seed=5)


def first_leaves(rung, alive, curves):
    """At the first rung arm 0 leaves, at the second nobody."""
    assert curves.shape == (len(alive), (2, 4)[rung])
    return [arm for arm in alive if rung == 1 or arm != 0]


def stop_after(steps):
    """Ctrl-C once so many steps are done."""
    taken = []

    def stop(count):
        taken.append(count)
        if sum(taken) == steps:
            raise KeyboardInterrupt

    return stop


def relative(values, expected):
    off = sum(float(((a - b) ** 2).sum()) for a, b in zip(values, expected, strict=True))
    return (off / sum(float((b**2).sum()) for b in expected)) ** 0.5


def moved(model, layer, trained):
    base = dict(model.layers[layer].named_parameters())
    return [value - base[name] for name, value in trained.items()]


def test_an_arm_that_stays_ends_with_the_weights_of_its_run_alone(tiny, make_bench, tmp_path):
    bench = make_bench(tiny("llama"), steps=STEPS)
    notes = []
    raced = train_arms(bench, described(bench), tmp_path, first_leaves, note=notes.append)
    assert raced.finalists == (1, 2)
    assert [len(raced.curve(arm)) for arm in range(3)] == [2, 6, 6]
    assert notes == ["After 2 steps, layer 0 leaves."]
    for arm in raced.finalists:
        alone = SingleLayerPolicies(bench.model, [LAYERS[arm]])
        (run,) = train(
            alone, bench.model, bench.task, bench.algorithm, bench.sampling, bench.settings,
            1e-3, seed=5,
        )  # fmt: skip
        assert raced.curve(arm).tolist() == pytest.approx(run.rewards, abs=1e-6)
        ours = moved(bench.model, LAYERS[arm], raced.policies.copies[arm].trained)
        expected = moved(bench.model, LAYERS[arm], alone.copies[0].trained)
        assert relative(ours, expected) < 0.02


def test_a_race_that_was_killed_goes_on(tiny, make_bench, tmp_path):
    bench = make_bench(tiny("llama"), steps=STEPS)
    whole = train_arms(bench, described(bench), tmp_path / "whole", first_leaves)

    with pytest.raises(KeyboardInterrupt):
        train_arms(
            bench, described(bench), tmp_path / "cut", first_leaves,
            checkpoint_every=2, on_step=stop_after(5),
        )  # fmt: skip
    notes = []
    again = train_arms(
        bench, described(bench), tmp_path / "cut", first_leaves,
        checkpoint_every=2, note=notes.append,
    )  # fmt: skip
    assert notes == ["Going on from step 4 of 6."]
    assert again.finalists == whole.finalists
    for arm in whole.finalists:
        assert again.curve(arm).tolist() == whole.curve(arm).tolist()
        for name, value in whole.trained(arm).items():
            assert torch.equal(value, again.trained(arm)[name])


def test_a_race_that_earns_nothing_ends_with_the_cause(tiny, make_bench, tmp_path):
    bench = make_bench(tiny("llama"), steps=STEPS)
    bench.task.rewards = lambda prompts, completions: [0.25] * len(completions)
    with pytest.raises(NoSignalError, match=rf"In {STEPS} steps no group's .* reward 0\.25"):
        train_arms(bench, described(bench), tmp_path, first_leaves)


def test_rewards_that_are_all_alike_after_a_checkpoint_end_nothing(tiny, make_bench, tmp_path):
    """What has been learned by then may be why they are."""
    bench = make_bench(tiny("llama"), steps=STEPS)
    with pytest.raises(KeyboardInterrupt):
        train_arms(
            bench, described(bench), tmp_path, first_leaves,
            checkpoint_every=1, on_step=stop_after(2),
        )  # fmt: skip
    bench.task.rewards = lambda prompts, completions: [1.0] * len(completions)
    assert train_arms(bench, described(bench), tmp_path, first_leaves).finalists == (1, 2)


def test_a_folder_of_another_race_is_refused(tiny, make_bench, tmp_path):
    bench = make_bench(tiny("llama"), steps=STEPS)
    train_arms(bench, described(bench), tmp_path, first_leaves)
    with pytest.raises(LayerpickError, match="holds another race"):
        train_arms(bench, described(bench, (2, 5)), tmp_path, first_leaves)
