"""Rank correlations between sweeps, against an independent computation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from layerpick.calibration.judging.agreement import (
    RankedSweep,
    agree,
    agreements,
    stepped_up,
    summarise,
)
from layerpick.calibration.sweeps.population import population_of
from layerpick.training.pretraining.zoo import ZOO


def sweep(scores, layers=None, count=None, **others) -> RankedSweep:
    layers = np.array(layers if layers is not None else range(len(scores)))
    count = count or layers.max() + 1
    made = {
        "name": "s",
        "model": "m",
        "family": "llama",
        "population": "pretrained",
        "task": "math",
        "data": "d",
        "algorithm": "grpo",
        "ceiling": None,
    }
    return RankedSweep(
        **{**made, **others}, layers=layers, depths=layers / (count - 1), scores=np.array(scores)
    )


def test_one_model_is_compared_by_layer():
    first = sweep([0.1, 0.5, 0.4, 0.9], [0, 2, 4, 6], 8, ceiling=0.9)
    second = sweep([0.3, 0.8, 0.2, 0.1], [2, 4, 6, 7], 8, ceiling=0.4, algorithm="dr_grpo")
    found = agree(first, second)
    expected = stats.spearmanr([0.5, 0.4, 0.9], [0.3, 0.8, 0.2]).statistic
    assert found.rho == pytest.approx(expected) and found.points == 3
    assert found.ceiling == pytest.approx(0.6) and found.difference == "algorithm"
    assert agree(first, sweep([0.1, 0.2], [0, 2], 8)) is None


def test_different_models_are_compared_by_depth_where_both_were_measured():
    few = sweep([0.2, 0.9, 0.5, 0.1], count=4)  # depths 0, 1/3, 2/3, 1
    many = sweep([0.0, 0.4, 0.8, 0.2], [2, 4, 6, 8], 10, model="n", family="gpt2")
    found = agree(few, many)
    # Depth 1 lies outside 2/9 … 8/9, and so does 0: two depths are too few.
    assert found is None
    many = sweep([0.0, 0.4, 0.8, 0.2, 0.1], [0, 3, 5, 8, 9], 10, model="n", family="gpt2")
    found = agree(few, many)
    at = [0.0, 0.4, 0.8 + (0.2 - 0.8) / 3, 0.1]  # layers 0, 3, 6 and 9
    assert found.rho == pytest.approx(stats.spearmanr([0.2, 0.9, 0.5, 0.1], at).statistic)
    assert found.points == 4 and found.ceiling is None and found.difference == "family"
    assert agree(many, few) == found


def test_what_tells_two_sweeps_apart():
    one = sweep([1.0, 2.0, 3.0])
    apart = {
        "settings": {},
        "algorithm": {"algorithm": "gigpo"},
        "task": {"data": "e", "algorithm": "gigpo"},
        "model": {"model": "n", "data": "e"},
        "family": {"model": "n", "family": "gpt2"},
    }
    for difference, others in apart.items():
        assert agree(one, replace(one, **others)).difference == difference
    unknown = replace(one, family=None)
    assert agree(unknown, replace(unknown, model="n")).difference == "family"


def test_the_ceiling_is_the_correlation_of_repetitions_with_as_many_seeds():
    generator = np.random.default_rng(0)
    truth = generator.standard_normal(20_000)

    def repetition(seeds):
        return truth + generator.standard_normal((seeds, len(truth))).mean(axis=0) * 1.5

    single = np.corrcoef(repetition(1), repetition(1))[0, 1]
    three = np.corrcoef(repetition(3), repetition(3))[0, 1]
    assert stepped_up(single, 3) == pytest.approx(three, abs=0.03)
    assert stepped_up(-0.2, 3) == 0 and stepped_up(0.7, 1) == pytest.approx(0.7)


def test_means_are_weighted_by_points_and_have_jackknife_errors():
    ranks = [[1, 2, 3, 4], [1, 2, 4, 3], [4, 3, 2, 1, 0], [1, 3, 2, 4]]
    sweeps = [
        sweep(np.array(scores, float), model=str(k), ceiling=0.5 if k < 2 else None)
        for k, scores in enumerate(ranks)
    ]
    found = agreements(sweeps)
    assert set(found) == {(a, b) for a in range(4) for b in range(a + 1, 4)}
    (summary,) = summarise(sweeps, found).values()

    def mean(pairs):
        weights = [found[pair].points - 1 for pair in pairs]
        return np.average([found[pair].rho for pair in pairs], weights=weights)

    assert summary.rho == pytest.approx(mean(found))
    left_out = [mean([pair for pair in found if k not in pair]) for k in range(4)]
    expected = np.sqrt(3 / 4 * sum((value - np.mean(left_out)) ** 2 for value in left_out))
    assert summary.error == pytest.approx(expected)
    assert summary.ceiling == pytest.approx(0.5)
    assert summary.rho_with_ceiling == pytest.approx(found[0, 1].rho)
    assert (summary.pairs, summary.models) == (6, 4)


def test_populations_are_apart():
    sweeps = [sweep([1.0, 2.0, 3.0], model=name) for name in "abc"]
    sweeps[2] = replace(sweeps[2], population="from scratch")
    groups = summarise(sweeps, agreements(sweeps))
    assert {key: group.pairs for key, group in groups.items()} == {
        ("model", "pretrained"): 1,
        ("model", "mixed"): 2,
    }
    assert all(population_of(name) == "from scratch" for name in ZOO)
    assert population_of("reference-math") == "from scratch"
    assert population_of("Qwen/Qwen3-4B") == "pretrained"
