"""Sweeps: which runs there are, what survives a kill, what a pass measures."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.sweeps.store import FolderStore, read_folder
from layerpick.selector.progress import Silent
from layerpick.training.errors import LayerpickError, NoSignalError
from layerpick.training.models.defaults import read_defaults, reference_model, with_defaults
from layerpick.training.settings import RlSettings
from layerpick.training.sweeps.multiplexed import (
    run_pass,
)
from layerpick.training.sweeps.one_by_one import run_trl_pass
from layerpick.training.sweeps.passes import engine_of
from layerpick.training.sweeps.records import RunKey
from layerpick.training.sweeps.sweep import SweepPlan, choose_rate, run_sweep
from layerpick.training.tasks.settings import FIRST_SETTINGS, TaskSettings

SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"
TIMES = ("seconds", "versions", "device")


def timeless(records):
    """Records without what may differ between equal runs."""
    return {r.run.name: r.model_dump(exclude={*TIMES, "policies_in_pass"}) for r in records}


def test_a_sweep_measures_every_run_once(bench, tmp_path):
    measured = []

    def counting(bench, keys, reporter):
        measured.extend(keys)
        return run_pass(bench, keys, reporter)

    plan, store = SweepPlan((0, 1, 2), seeds=2), FolderStore(tmp_path / "sweep")
    records = run_sweep(bench, plan, store, counting, Silent())
    # Two bases, two rates on the first seed, the full run of the second, three layers twice.
    assert len(measured) == len({key.name for key in measured}) == 2 + 2 + 1 + 6
    assert timeless(read_folder(store.folder)) == timeless(records)
    assert all(record.status == "done" and len(record.prompt_scores) == 16 for record in records)
    chosen = {r.run.learning_rate for r in records if r.run.kind == "layer"}
    assert chosen == {choose_rate([r for r in records if r.run.kind == "full" and not r.run.seed])}
    before = len(measured)
    again = run_sweep(bench, plan, FolderStore(tmp_path / "sweep"), counting, Silent())
    assert len(measured) == before and again == records
    other = run_sweep(bench, SweepPlan((0, 1, 2)), FolderStore(tmp_path / "b"), counting, Silent())
    assert timeless(other).items() <= timeless(records).items()


def test_with_own_rates_every_policy_is_trained_at_every_rate(bench, tmp_path):
    passes = []

    def counting(bench, keys, reporter):
        passes.append([key.name for key in keys])
        return run_pass(bench, keys, reporter)

    bench = replace(bench, rates="own")
    plan, folder = SweepPlan((0, 2), seeds=2, policies_per_pass=3), tmp_path / "sweep"
    records = run_sweep(bench, plan, FolderStore(folder), counting, Silent())
    trained = {(r.run.kind, r.run.layer, r.run.seed, r.run.learning_rate) for r in records}
    policies = [("full", None), ("layer", 0), ("layer", 2)]
    wanted = {(*p, seed, rate) for p in policies for seed in (0, 1) for rate in (1e-4, 3e-3)}
    assert trained == wanted | {("base", None, seed, None) for seed in (0, 1)}
    assert [len(names) for names in passes] == [1] * 2 + [1] * 4 + [3, 1] * 2
    assert {record.settings.rates for record in read_folder(folder)} == {"own"}
    before = len(passes)
    assert run_sweep(bench, plan, FolderStore(folder), counting, Silent()) == records
    # Another rate is trained beside those that are there.
    wider = replace(bench, learning_rates=(1e-4, 1e-3, 3e-3))
    run_sweep(wider, plan, FolderStore(folder), counting, Silent())
    assert sum(map(len, passes[before:])) == 2 * 3 and before + 4 == len(passes)
    with pytest.raises(LayerpickError, match="rates = 'own', not 'shared'"):
        run_sweep(replace(bench, rates="shared"), plan, FolderStore(folder), counting, Silent())


def test_a_policys_run_does_not_depend_on_its_pass(bench):
    keys = [
        RunKey(kind="layer", seed=3, learning_rate=rate, layer=layer)
        for layer, rate in ((0, 3e-3), (1, 1e-3), (1, 3e-3), (2, 1e-3))
    ]
    together = run_pass(bench, keys[::-1])
    assert [record.run for record in together] == keys
    alone = [record for key in keys for record in run_pass(bench, [key])]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.curve == pytest.approx(theirs.curve) and ours.tokens == theirs.tokens
        assert ours.prompt_scores == pytest.approx(theirs.prompt_scores)
    assert len({record.curve for record in together}) == len(keys)


def test_the_trl_engine_measures_the_same_runs(bench):
    before = [parameter.clone() for parameter in bench.model.model.parameters()]
    keys = [RunKey(kind="layer", seed=3, learning_rate=1e-4, layer=layer) for layer in (0, 2)]
    keys += [RunKey(kind="full", seed=3, learning_rate=1e-4)]
    theirs = run_trl_pass(bench, [*keys, RunKey(kind="base", seed=3)])
    ours = [*run_pass(bench, keys[:2]), *run_pass(bench, keys[2:])]
    ours += run_pass(bench, [RunKey(kind="base", seed=3)])
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.curve == pytest.approx(other.curve, abs=1e-5)
        assert mine.score == pytest.approx(other.score) and mine.tokens == other.tokens
        assert other.settings.engine == "trl"
    unchanged = zip(before, bench.model.model.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in unchanged)


def test_settings_that_came_later_leave_old_hashes_alone():
    """Those of the shipped sweep of the built-in math model, measured before they came."""
    stored = read_folder(SHIPPED_SWEEPS / "reference-math" / "math-grpo")[0].settings
    folder = Path(reference_model("math"))
    settings = with_defaults(TaskSettings(), read_defaults(folder, "math"))
    assert settings.identity == stored.task_settings_hash
    others = [{"stop": ("x",)}, {"template": "{prompt}"}, {"all_or_nothing": True}, {"env": "Taxi"}]
    hashes = {replace(settings, **other).identity for other in ({}, *others)}
    assert len(hashes) == 1 + len(others)
    assert replace(settings, dataset="else").identity == stored.task_settings_hash
    fields = {field.name for field in dataclasses.fields(TaskSettings)}
    assert set(FIRST_SETTINGS) <= fields


class Telling(Silent):
    """What is told of stages and of what is written, by their names."""

    def __init__(self):
        self.steps, self.expected, self.written = {}, {}, {}

    def stage(self, name, total):
        self.steps[name] = 0
        return lambda done: self.steps.update({name: self.steps[name] + done})

    def writing(self, name, episodes, longest):
        self.expected[name] = (episodes, longest)
        self.written[name] = told = Told()
        return told


class Told:
    tokens = episodes = 0

    def wrote(self, tokens):
        self.tokens += tokens

    def ended(self, episodes):
        self.episodes += episodes


@pytest.mark.parametrize("measure", [run_pass, run_trl_pass])
def test_scoring_tells_what_it_writes(bench, measure):
    """The base score too: in tokens, of as many episodes as were announced."""
    telling = Telling()
    (base,) = measure(bench, [RunKey(kind="base", seed=0)], telling)
    assert telling.expected == {"scoring base-seed0": (32, 4)} and not telling.steps
    assert telling.written["scoring base-seed0"].tokens == base.tokens
    layers = [RunKey(kind="layer", seed=0, learning_rate=1e-4, layer=layer) for layer in (0, 2)]
    measure(bench, layers, telling)
    assert set(telling.steps.values()) == {4}
    assert telling.written.keys() == {
        "scoring base-seed0",
        *map("scoring {}".format, telling.steps),
    }
    for name, told in telling.written.items():
        assert told.episodes == telling.expected[name][0]


def test_a_sweep_that_earns_nothing_ends_with_the_cause(bench, tmp_path):
    """Whichever engine trains; the base score is kept."""
    said = []
    bench.task.rewards = lambda prompts, completions: [1.0] * len(completions)
    for engine in ("multiplexed", "trl"):
        plan, store = SweepPlan((0, 1), engine=engine), FolderStore(tmp_path / engine)
        with pytest.raises(
            NoSignalError, match=r"mean reward 1\.00.* every completion is ri"
        ) as end:
            run_sweep(bench, plan, store, engine_of(engine), Silent())
        said.append(str(end.value))
        assert [record.run.kind for record in read_folder(store.folder)] == ["base"]
    assert said[0] == said[1] and said[0].startswith("In 4 steps no group's rewards differed")


def test_one_policy_that_earns_is_enough_to_go_on(bench):
    """Rewards differ in the second step only, and only those of one policy."""
    asked = count()
    bench.task.rewards = lambda prompts, completions: [
        float(next(asked) == 2 * 16 + 16) for _ in completions
    ]
    keys = [RunKey(kind="layer", seed=0, learning_rate=1e-4, layer=layer) for layer in (0, 2)]
    first, second = run_pass(bench, keys)
    assert first.curve == (0.0,) * 4 and second.curve == (0.0, 1 / 16, 0.0, 0.0)


def test_training_raises_the_reward(bench):
    bench = replace(bench, settings=RlSettings(steps=30, prompts=4, group_size=8))
    (full,) = run_pass(bench, [RunKey(kind="full", seed=0, learning_rate=3e-3)])
    (base,) = run_pass(bench, [RunKey(kind="base", seed=0)])
    assert full.score > base.score + 3 * base.error


def test_too_large_a_pass_is_halved(bench, tmp_path):
    sizes = []

    def tight(bench, keys, reporter):
        sizes.append(len(keys))
        if len(keys) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return run_pass(bench, keys, reporter)

    plan = SweepPlan((0, 1, 2), policies_per_pass=3)
    records = run_sweep(bench, plan, FolderStore(tmp_path / "sweep"), tight, Silent())
    assert sizes[-4:] == [3, 1, 1, 1] and len(records) == 1 + 2 + 3

    def never(bench, keys, reporter):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    with pytest.raises(LayerpickError, match="single run does not fit"):
        run_sweep(bench, plan, FolderStore(tmp_path / "other"), never, Silent())


def test_a_policy_that_breaks_is_recorded_as_failed(bench, tmp_path, monkeypatch):
    from layerpick.training.engine.stacked import SingleLayerPolicies

    made = SingleLayerPolicies.__init__

    def broken(self, model, layers):
        made(self, model, layers)
        for policy, layer in enumerate(self.layers):
            if layer == 1:
                weight = self.parameters(policy)[0]
                weight.register_hook(lambda gradient: gradient * float("nan"))

    monkeypatch.setattr(SingleLayerPolicies, "__init__", broken)
    keys = [RunKey(kind="layer", seed=0, learning_rate=1e-3, layer=layer) for layer in range(3)]
    records = run_pass(bench, keys)
    monkeypatch.undo()
    assert [record.status for record in records] == ["done", "failed", "done"]
    assert records[1].score is None and "not finite" in records[1].reason
    unharmed = run_pass(bench, [keys[0], keys[2]])
    assert [r.curve for r in (records[0], records[2])] == [r.curve for r in unharmed]


def test_the_learning_rate_is_chosen_by_the_last_quarter(bench):
    (trial,) = run_pass(bench, [RunKey(kind="full", seed=0, learning_rate=1e-4)])

    def with_curve(rate, curve, status="done"):
        key = RunKey(kind="full", seed=0, learning_rate=rate)
        return trial.model_copy(update={"run": key, "curve": curve, "status": status})

    early = with_curve(1.0, (0.9, 0.9, 0.9, 0.2))
    late = with_curve(2.0, (0.0, 0.0, 0.0, 0.3))
    failed = with_curve(3.0, (1.0,) * 4, "failed")
    assert choose_rate([early, late, failed]) == 2.0
    with pytest.raises(LayerpickError, match="failed at every learning rate"):
        choose_rate([failed])


SCRIPT = f"""
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from layerpick.selector.progress import Silent
from layerpick.selector.settings import *
from layerpick.selector.sweep.run import measure_sweep
from layerpick.selector.sweep.settings import SweepChoice
model, root = sys.argv[1:]
print("ready", flush=True)
print(measure_sweep(
    ModelChoice(model, device="cpu"), "math",
    TaskSettings(dataset={SUMS!r}, template="{{expression}} ="), None,
    SamplingChoice(max_new_tokens=4, batch_size=1000),
    RlSettings(steps=3, prompts=4, group_size=4),
    HeldOutChoice(heldout_prompts=8),
    SweepChoice(seeds=2, learning_rates=(1e-4, 1e-3), probes="none"),
    Path(root), Silent()))
"""


def start(model, root):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(model), str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return Path(out.split()[-1])


@pytest.mark.slow
def test_two_sweeps_side_by_side_fill_one_folder(tiny, tmp_path):
    model = tiny("gpt2").folder
    both = [start(model, tmp_path / "shared") for _ in range(2)]
    assert len({finish(process) for process in both}) == 1
    (folder,) = (tmp_path / "shared").glob("*/*")
    records = read_folder(folder)
    assert len(records) == 2 + (1 + 3) * 2 * 2
    alone = tmp_path / "alone"
    exec(SCRIPT.replace("sys.argv[1:]", repr((str(model), str(alone)))), {})
    assert timeless(records) == timeless(
        read_folder(alone / folder.relative_to(tmp_path / "shared"))
    )


@pytest.mark.slow
def test_twenty_kills_and_a_completion_give_the_records_of_an_uninterrupted_sweep(tiny, tmp_path):
    model = tiny("gpt2").folder
    process = start(model, tmp_path / "whole")
    process.stdout.readline()
    begun = time.perf_counter()
    undisturbed = read_folder(finish(process))
    length = time.perf_counter() - begun
    chance = random.Random(0)
    for _ in range(20):
        process = start(model, tmp_path / "killed")
        process.stdout.readline()
        time.sleep(chance.uniform(0.05, 0.4) * length)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    records = read_folder(finish(start(model, tmp_path / "killed")))
    assert timeless(records) == timeless(undisturbed)
    assert {r.policies_in_pass for r in records} == {r.policies_in_pass for r in undisturbed}
