"""Races on made-up curves whose truth is known, and the Gaussian model against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from layerpick.calibration.races.curves import SweepCurves
from layerpick.calibration.races.foresight import Foresight, learn
from layerpick.calibration.races.replay import replay
from layerpick.calibration.races.rule import RaceRule, learn_rule, run_race
from layerpick.calibration.races.store import find_rule


def made_up(
    number: int, *, slope: float = 0.8, noise: float = 0.02, layers: int = 6, steps: int = 40
):
    """A sweep whose curves rise to the final scores; predictions tell them roughly."""
    generator = np.random.default_rng(number)
    predicted = generator.normal(0.5, 0.2, layers)
    final = slope * predicted + generator.normal(0, 0.1, layers)
    base = 0.3
    seeds = 3
    rising = np.linspace(0, 1, steps)
    curves = (
        base
        + 0.7 * final[None, :, None] * rising
        + noise * generator.normal(size=(seeds, layers, steps))
    )
    scores = base + 0.7 * final + noise * generator.normal(size=(seeds, layers))
    return SweepCurves(
        f"sweep {number}",
        f"model {number}",
        base,
        0.5,
        np.arange(layers),
        curves,
        scores,
        predicted,
    )


@pytest.fixture(scope="module")
def sweeps():
    return [made_up(number) for number in range(12)]


def test_the_posterior_is_that_of_the_joint_gaussian():
    """Against draws from the model, weighted by how near their curves come to those seen."""
    foresight = Foresight(
        slope=0.8,
        slope_variance=0.3,
        arm_variance=0.02,
        curve_weights=(1.0, 0.0),
        gain=0.6,
        noise_variance=0.003,
    )
    predicted = np.array([0.2, 0.5, 0.9])
    seen = np.array([0.10, 0.05, -0.15])
    curves = 0.7 * np.repeat(seen[:, None], 3, axis=1)
    mean, covariance = foresight.posterior(predicted, curves, 0.7)
    generator = np.random.default_rng(0)
    p = predicted - predicted.mean()
    count = 400_000
    beta = generator.normal(0.8, 0.3**0.5, count)
    y = beta[:, None] * p + generator.normal(0, 0.02**0.5, (count, 3))
    said = 0.6 * (y - y.mean(axis=1, keepdims=True))
    log_weight = -((said - seen) ** 2).sum(axis=1) / (2 * 0.003)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    expected = weight @ y
    error = (weight**2).sum() ** 0.5 * y.std()
    assert mean == pytest.approx(expected, abs=6 * error)
    assert np.diag(covariance) == pytest.approx(weight @ (y - expected) ** 2, rel=0.1)


def test_curves_that_contradict_the_prediction_change_the_mind(sweeps):
    foresight = learn(sweeps, 0.4)
    predicted = np.array([0.9, 0.5, 0.1])
    steps = np.linspace(0, 0.4, 16)
    with_it = 0.3 + steps * np.array([[0.6], [0.4], [0.2]])
    against = 0.3 + steps * np.array([[0.2], [0.4], [0.6]])
    agreeing, _ = foresight.posterior(predicted, with_it, 0.7)
    opposed, _ = foresight.posterior(predicted, against, 0.7)
    assert agreeing.argmax() == 0
    assert opposed[0] - opposed[2] < agreeing[0] - agreeing[2]


def test_a_rule_keeps_to_its_budget_and_loses_less_than_the_prediction_alone(sweeps):
    (found,) = replay(sweeps, budgets=(2.5,)).values()
    rows = {row.name: row for row in found}
    race, alone = rows["race, 2.5 runs"], rows["best predicted, alone"]
    assert race.cost[0] <= 2.5 + 3 * race.cost[1] + 0.1
    assert race.regret[0] < alone.regret[0]


def test_populations_are_judged_apart_by_rules_learned_from_all(sweeps):
    mixed = [replace(sweep, population="from scratch") for sweep in sweeps[:-2]] + sweeps[-2:]
    found = replay(mixed, budgets=(2.5,))
    whole = {row.name: row for row in replay(sweeps, budgets=(2.5,))["pretrained"]}
    assert [rows[0].sweeps for rows in found.values()] == [2, len(sweeps) - 2]
    for ours, theirs in zip(*found.values(), strict=True):
        shares = [2 * ours.share_lost[0], (len(sweeps) - 2) * theirs.share_lost[0]]
        assert sum(shares) / len(sweeps) == pytest.approx(whole[ours.name].share_lost[0])


def test_a_seeds_own_scores_are_never_looked_at(sweeps):
    rule = learn_rule(sweeps[1:], 2.5)
    sweep = sweeps[0]
    blind = SweepCurves(
        sweep.name, sweep.weights_hash, sweep.base, sweep.gain, sweep.layers,
        sweep.curves, np.full_like(sweep.scores, np.nan), sweep.predicted,
    )  # fmt: skip
    assert [run_race(rule, blind, s) for s in range(3)] == [
        run_race(rule, sweep, s) for s in range(3)
    ]


def test_an_arm_without_a_chance_leaves_whatever_the_budget():
    rule = RaceRule(foresights=(), strictness=0.0, arms=3)
    kept = rule.keep(np.array([0.5, 0.4, 0.1]), np.array([0.6, 0.39, 0.01]))
    assert kept.tolist() == [True, True, False]


def test_shipped_rules_can_be_found():
    assert find_rule("off_policy", 2.5).budget == 2.5
    assert find_rule("on_policy", 2.7).level == "off_policy"
    assert find_rule("weights", 99.0).level == "backward"
