"""Budgets: what is read, what is measured next, and how predictions of two levels are joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.calibration.predictors.base import Prediction
from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.predictors.stored import calibrate
from layerpick.selector.settings import RolloutChoice
from layerpick.selector.suggestion import run as suggesting
from layerpick.selector.suggestion.budget import merge, most_candidates, read_budget, still_possible
from layerpick.selector.suggestion.report import sentences
from layerpick.selector.suggestion.run import suggest
from layerpick.training.errors import LayerpickError


def prediction(chances, contribution=None) -> Prediction:
    chances = np.asarray(chances, float)
    values = chances if contribution is None else np.asarray(contribution, float)
    return Prediction(values, values - 0.1, values + 0.1, chances / chances.sum(), 0.8, "made up")


def test_budgets_are_minutes_or_shares():
    assert read_budget("10", 0.9).amount == 10 and not read_budget("10", 0.9).is_share
    assert read_budget("5%", 0.9).amount == 0.05 and read_budget("5%", 0.9).is_share
    for wrong in ("0", "-3", "soon", "5 %%", "inf", "nan"):
        with pytest.raises(LayerpickError, match="--budget"):
            read_budget(wrong, 0.9)


@given(st.lists(st.floats(0.001, 1), min_size=3, max_size=40))
def test_candidates_are_the_likeliest_and_at_most_half(chances):
    asked = prediction(chances)
    kept = still_possible(asked)
    assert 2 <= len(kept) <= most_candidates(len(chances)) <= len(chances) / 2 + 1
    assert list(kept) == sorted(kept)
    others = np.delete(asked.chance_best, kept)
    assert asked.chance_best[list(kept)].min() >= others.max()
    if len(kept) < most_candidates(len(chances)):
        assert others.sum() <= 0.02 + 1e-9


def test_a_sure_thing_has_one_rival():
    assert still_possible(prediction([0.001, 0.99, 0.009, 0.0])) == (1, 2)


def test_layers_left_out_keep_what_they_had():
    before = prediction([0.4, 0.4, 0.2], [0.5, 0.6, 0.1])
    after = prediction([0.1, 0.9, 0.0], [0.7, 0.9, -5.0])
    joined = merge(before, after, (0, 1))
    assert joined.contribution.tolist() == [0.7, 0.9, 0.1]
    assert joined.low.tolist() == pytest.approx([0.6, 0.8, 0.0])
    assert joined.chance_best.tolist() == pytest.approx([0.08, 0.72, 0.2])
    assert merge(before, after, None) is after


@pytest.fixture
def predictors(made_examples, monkeypatch):
    """Predictors of every level but the off-policy one, fitted on made-up sweeps."""
    table: dict = {}
    monkeypatch.setattr(suggesting, "available_predictors", lambda: table)

    def fit(suggestion, *levels):
        features = suggestion.layers[suggestion.pick].features
        for name in levels:
            generator = np.random.default_rng(0)
            examples = []
            for example in made_examples(4):
                own = {
                    probe: {
                        feature: generator.normal(size=example.layers)
                        for feature in features
                        if feature in known(probe)
                    }
                    for probe in LEVELS[name].probes
                }
                examples.append(replace(example, features=own))
            table[name] = calibrate(examples, LEVELS[name])

    return fit


def known(probe: str) -> set[str]:
    from layerpick.probes.table import PROBES

    return {info.name for info in PROBES[probe].features}


def test_levels_are_measured_until_the_budget_is_spent(predictors):
    few = RolloutChoice(prompts=8)
    everything = suggest(rollouts=few, probes=list(LEVELS["one_step"].probes))
    predictors(everything, "backward", "one_step")
    spent = suggest(rollouts=few, spending=read_budget("30", 1.0))
    assert [probe.name for probe in spent.cost.probes] == list(LEVELS["one_step"].probes)
    assert spent.stopped == "nothing dearer is left to measure" and not spent.further
    short = suggest(rollouts=few, spending=read_budget("0.0001%", 1.0))
    assert [probe.name for probe in short.cost.probes] == list(LEVELS["backward"].probes)
    assert "the level one_step needs about" in short.stopped
    sure = suggest(rollouts=few, spending=read_budget("30", 0.01))
    assert sure.stopped.startswith("certain enough")
    assert len(sure.cost.probes) == len(LEVELS["backward"].probes)


def test_what_dearer_levels_would_take_is_said(predictors):
    few = RolloutChoice(prompts=8)
    everything = suggest(rollouts=few, probes=list(LEVELS["off_policy"].probes))
    predictors(everything, "backward", "one_step", "off_policy")
    plain = suggest(rollouts=few)
    assert list(plain.further) == ["one_step", "off_policy"]
    assert 0 < 2 * plain.further["one_step"] < plain.further["off_policy"]
    (line,) = (line for line in sentences(plain) if line.startswith("Not measured, and tell more"))
    assert "one_step (about" in line and "--budget MINUTES" in line
    assert not suggest(rollouts=few, probes=["weights"]).further


def test_only_without_any_predictor_is_position_all_that_counts(predictors, monkeypatch):
    few = RolloutChoice(prompts=8)
    near = suggest(rollouts=few, probes=LEVELS["weights"].probes)
    predictors(near, "weights")
    assert "measured sweeps" in suggest(rollouts=few, probes=LEVELS["weights"].probes).basis
    monkeypatch.setattr(suggesting, "available_predictors", dict)
    far = suggest(rollouts=few, probes=LEVELS["weights"].probes)
    assert far.basis.startswith("position only")


def test_what_is_measured_by_default_is_one_thing_in_three_places():
    import inspect

    from layerpick.probes.table import DEFAULT_PROBES
    from layerpick.selector.suggestion.budget import FIRST
    from layerpick.selector.suggestion.command import suggest as command

    assert LEVELS[FIRST].probes == DEFAULT_PROBES
    assert inspect.signature(command).parameters["probes"].default == ",".join(DEFAULT_PROBES)


def test_the_part_of_a_stored_warm_up_is_that_of_the_probes_own_sizes():
    from layerpick.calibration.predictors import levels
    from layerpick.probes.base import ProbeSizes

    sizes = ProbeSizes()
    assert sizes.on_policy_episodes == levels.EPISODES_OF_A_STEP
    assert sizes.judged_prompts * sizes.judged_samples == levels.EPISODES_OF_A_JUDGEMENT
    assert pytest.approx(448 / 1664) == levels.WARM_UP_PART
