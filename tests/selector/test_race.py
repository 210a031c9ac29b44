"""Races on the built-in model, as a user runs them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import layerpick
from layerpick import read_suggestion
from layerpick.calibration.sweeps.store import read_record
from layerpick.selector.auto.command import auto
from layerpick.selector.pages.html import REPORT, render
from layerpick.selector.progress import Silent
from layerpick.selector.race.page import race_page
from layerpick.selector.race.racing import RaceOutcome
from layerpick.selector.race.report import arms_table, sentences
from layerpick.selector.race.settings import RaceChoice
from layerpick.selector.settings import HeldOutChoice, RlSettings
from layerpick.selector.training_run.command import train
from layerpick.selector.training_run.settings import PaceChoice, StrategyChoice, TrainingChoice
from layerpick.training.engine.learner import Learner
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import load_model
from layerpick.training.runs.delta import apply, read_delta

RL = RlSettings(steps=10, prompts=4, group_size=4)
HELD_OUT = HeldOutChoice(12, 2)
TYPED = ("--steps", 10, "--prompts", 4, "--group-size", 4, "--heldout-prompts", 12)


class Listening(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def raced(tmp_path_factory) -> RaceOutcome:
    return race(tmp_path_factory.mktemp("race"))


def race(folder, **given) -> RaceOutcome:
    chosen = {"rl": RL, "heldout": HELD_OUT, "racing": RaceChoice(race_budget=2.0), **given}
    return layerpick.race(task="math", sweeps=folder / "sweeps", out=folder / "race", **chosen)


def test_a_race_ends_with_its_winner_trained(raced):
    result = raced.result
    assert result.cost == pytest.approx(sum(arm.steps for arm in result.arms) / 10)
    winner, *others = result.ranked
    assert winner.layer == result.winner and winner.steps == 10 and winner.score is not None
    assert any(arm.score for arm in others)  # the runner-up
    stored = json.loads((raced.place / "result.json").read_text())
    assert stored["winner"] == result.winner and 0 <= stored["chance_missed"] <= 1
    assert not list(raced.place.glob("checkpoint-*"))
    trained = layerpick.load_with_delta(raced.winner.path)
    base = load_model(trained.identity.name)
    differ = {
        name
        for (name, new), (_, old) in zip(
            trained.model.named_parameters(), base.model.named_parameters(), strict=True
        )
        if not torch.equal(new, old)
    }
    prefix = base.layers.prefix(result.winner)
    assert differ and all(name.startswith(prefix) for name in differ)


def test_what_took_all_steps_is_a_run_of_a_sweep(raced):
    result = raced.result
    found = {}
    for path in (raced.place.parent / "sweeps").rglob("layer*.json"):
        record = read_record(path)
        found[record.run.layer] = record
    assert set(found) == {arm.layer for arm in result.arms if arm.steps == 10}
    record, arm = found[result.winner], result.ranked[0]
    assert record.curve == arm.curve and record.settings.rates == "own"
    assert record.score == pytest.approx(arm.score.mean)


def test_arms_are_trained_at_the_rate_that_is_advised_unless_one_is_asked_for(raced, tmp_path):
    advised = read_suggestion(raced.place / "suggestion.json")
    path = tmp_path / "suggestion.json"
    advised.model_copy(update={"learning_rate": 3e-4}).save(path)
    for asked, expected in ((None, 3e-4), (1e-4, 1e-4)):
        found = race(tmp_path / str(asked), choice=PaceChoice(learning_rate=asked), suggestion=path)
        assert {arm.learning_rate for arm in found.result.arms} == {expected}


def test_a_finished_race_is_not_run_again_unless_its_winner_is_lost(raced, tmp_path):
    heard, folder = Listening(), raced.place.parent
    again = race(folder, reporter=heard).result
    assert again == raced.result
    assert heard.notes == [f"{raced.place} is finished; nothing is trained again."]
    before, _ = read_delta(raced.winner.path)
    (raced.winner.path / "layer_delta.safetensors").unlink()
    anew = race(folder).result
    assert anew.arms == raced.result.arms
    after, _ = read_delta(raced.winner.path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_winner_has_the_weights_of_its_run_alone(raced, tmp_path):
    """`layerpick train --engine own` of that layer: other code, the same objective and numbers."""
    alone = layerpick.train(
        task="math",
        layer=str(raced.result.winner),
        rl=RL,
        heldout=HELD_OUT,
        choice=TrainingChoice(engine="own"),
        out=tmp_path / "alone",
    )
    ours, origin = read_delta(raced.winner.path)
    expected, _ = read_delta(alone.folder.path)
    base = dict(load_model(origin.base_model).model.named_parameters())
    moved, off = 0.0, 0.0
    for name, value in expected.items():
        moved += float(((value - base[name]) ** 2).sum())
        off += float(((value - ours[name]) ** 2).sum())
    assert moved > 0
    assert (off / moved) ** 0.5 < 0.02  # rounding, which Adam's first steps enlarge
    rewards = [step.values["reward"] for step in alone.folder.metrics()]
    assert raced.result.ranked[0].curve == pytest.approx(rewards, abs=1e-6)
    assert raced.winner.result().trained.mean == pytest.approx(alone.result.trained.mean, abs=0.05)
    costs = raced.winner.result().cost, alone.result.cost
    assert costs[0].tokens == costs[1].tokens


def test_an_arm_that_fails_before_it_is_judged_costs_the_race_nothing_else(tmp_path, monkeypatch):
    """Nor does a place where finalists cannot be recorded."""
    update = Learner.update

    def without_the_first(learner, lessons):
        losses, broken = update(learner, lessons)
        losses[0] = np.nan
        return losses, broken

    monkeypatch.setattr(Learner, "update", without_the_first)
    (tmp_path / "sweeps").write_text("no folder")
    heard = Listening()
    result = race(tmp_path, reporter=heard).result
    failed, *others = result.arms
    assert failed.failure == "the loss of step 0 is not finite" and failed.steps == 1
    assert result.winner in {arm.layer for arm in others} and failed.score is None
    assert any("finalists are not kept as runs of a sweep" in note for note in heard.notes)


def test_the_model_card_says_how_it_was_chosen(raced, tmp_path):
    apply(raced.winner.path, tmp_path / "merged")
    card = (tmp_path / "merged" / "README.md").read_text("utf-8")
    layers = ", ".join(str(arm.layer) for arm in raced.result.arms)
    assert f"- Chosen: the winner of a race of layers {layers}" in card


def test_layers_at_two_rates_are_arms(tmp_path):
    racing = RaceChoice(race_budget=2.0, arms=4, race_rates=(1e-3, 3e-4))
    result = race(tmp_path, racing=racing).result
    assert len(result.arms) == 4 and len({arm.layer for arm in result.arms}) == 2
    for layer in {arm.layer for arm in result.arms}:
        assert [a.learning_rate for a in result.arms if a.layer == layer] == [3e-4, 1e-3]
    headings = [column.header for column in arms_table(result).columns]
    assert headings[:2] == ["layer", "rate"]
    assert result.name(result.ranked[0]).endswith(f"at {result.learning_rate:g}")
    records = map(read_record, (tmp_path / "sweeps").rglob(f"layer{result.winner:03d}-*.json"))
    assert result.learning_rate in {record.run.learning_rate for record in records}


def test_train_and_auto_race_too(raced, runs, tmp_path):
    """One path: the same arms, the same weights."""
    typed = (*TYPED, "--heldout-samples", 2, "--race-budget", 2, "--sweeps", tmp_path / "sweeps")
    told = runs(train)("--layer", "race", *typed, "--out", tmp_path / "train", "--json")
    assert json.loads(told)["chosen"] == raced.winner.result().chosen
    runs(auto)("--race", *typed, "--out", tmp_path / "auto", "--json")
    expected, _ = read_delta(raced.winner.path)
    for place in (tmp_path / "train", tmp_path / "auto" / "race"):
        ours, _ = read_delta(place / "winner")
        assert all(torch.equal(ours[name], expected[name]) for name in expected)
        assert (place / "race.png").stat().st_size > 5_000
        assert (place / REPORT).is_file()
    page = (tmp_path / "auto" / REPORT).read_text("utf-8")
    assert "the winner of a race of layers" in page and "The race" in page


def test_options_that_contradict_each_other():
    for given, match in (
        ({"layer": "3", "racing": RaceChoice(arms=3)}, "belong to --layer race"),
        ({"layer": "race", "choice": TrainingChoice(vllm="colocate")}, "--vllm is TRL's"),
        ({"layer": StrategyChoice("race", by_sweep="sweeps")}, "leave --by-sweep out"),
    ):
        with pytest.raises(LayerpickError, match=match):
            layerpick.train(**given)
    with pytest.raises(LayerpickError, match="leave --learning-rate out"):
        layerpick.race(racing=RaceChoice(race_rates=(1e-4,)), choice=PaceChoice(1e-3))
    for given, match in (
        ({"rl": RlSettings(steps=5)}, "too short to judge"),
        ({"racing": RaceChoice(race_budget=1.0)}, "must be at least 1.5"),
    ):
        with pytest.raises(LayerpickError, match=match):
            layerpick.race("no/such-model", **given)


def test_the_page_tells_the_race(raced):
    text = render(race_page(raced))
    result = raced.result
    assert result.headline in text
    for line in sentences(result):
        assert line.split("±")[0] in text
    stages = [0, *result.rungs, result.steps]
    for number, start in enumerate(stages[:-1]):
        assert f'"race-stage-{number}": ["steps {start + 1} to {stages[number + 1]}"' in text
    for arm in result.ranked:
        first = f"layer {arm.layer}: reward {np.mean(arm.curve[: result.rungs[0]]):.2f}"
        assert first in text
