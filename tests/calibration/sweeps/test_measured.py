"""What a sweep is read to say, and with which error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.calibration.sweeps.measured import read_sweep
from layerpick.calibration.sweeps.paired import Measured, difference, share, share_of_score
from layerpick.calibration.sweeps.values import Score
from layerpick.training.errors import LayerpickError


@pytest.fixture
def sweep_of(made):
    """`sweep_of(gains)`: records of a sweep."""

    def make(gains, seeds=2, prompts=200, full=0.4, noise=0.05):
        """Records in which layer k gains `gains[k]`, with noise by prompt."""
        generator = np.random.default_rng(0)
        shared = generator.uniform(0.2, 0.4, prompts)

        def scores(gain):
            return tuple(shared + gain + noise * generator.standard_normal(prompts))

        records = []
        for seed in range(seeds):
            records.append(made("base", seed, scores=scores(0.0)))
            records.append(made("full", seed, scores=scores(full)))
            records += [
                made("layer", seed, layer, scores=scores(gain)) for layer, gain in enumerate(gains)
            ]
        return records

    return make


def test_contributions_best_layer_and_its_equals(sweep_of):
    reading = read_sweep(sweep_of([0.1, 0.39, 0.4, 0.2]))
    sweep = reading.sweep
    measured = [reading.contribution(layer) for layer in range(4)]
    assert [m.mean for m in measured] == pytest.approx([0.25, 0.975, 1.0, 0.5], abs=0.05)
    assert [m.mean for m in measured] == pytest.approx([sweep.contribution(k) for k in range(4)])
    assert sweep.contributions == dict(enumerate(measured))
    assert {reading.best, *reading.equals} <= {1, 2} and reading.refusal is None
    assert reading.noise_ceiling > 0.75
    tied = read_sweep(sweep_of([0.3, 0.3, 0.3, 0.1], noise=0.3))
    assert {tied.best, *tied.equals} == {0, 1, 2}


def test_contributions_are_refused_when_rl_gained_nothing(sweep_of):
    reading = read_sweep(sweep_of([0.01, 0.02], full=0.0, prompts=20))
    assert "not more than two standard errors above zero" in reading.refusal
    assert read_sweep(sweep_of([0.01, 0.02], full=0.4)).refusal is None


def by_hand(single, base, whole):
    """C and its error from scores (seeds, prompts), in so many words."""
    seeds, prompts = whole.shape
    value = (single.mean() - base.mean()) / (whole.mean() - base.mean())
    rest = single - base - value * (whole - base)
    variance = np.var(rest.mean(axis=0), ddof=1) / prompts
    variance += np.var(rest.mean(axis=1), ddof=1) / seeds if seeds > 1 else 0.0
    return value, np.sqrt(variance) / abs(whole.mean() - base.mean())


def test_shares_of_the_best_layers_gain_need_no_full_run(made, sweep_of):
    records = sweep_of([0.1, 0.39, 0.6, 0.2])
    collapsed = [
        made("full", r.run.seed, scores=(0.0,) * len(r.prompt_scores))
        if r.run.kind == "full"
        else r
        for r in records
    ]
    for runs in (records, collapsed):
        reading = read_sweep(runs)
        scores = {layer: found.scores for layer, found in reading.layers.items()}
        base, best = reading.base.scores, scores[2]
        assert reading.ranked == (2, 1, 3, 0) and reading.nothing_gained is None
        for layer, single in scores.items():
            share = reading.share_of_best(layer)
            expected = by_hand(single, base, best)
            assert (share.mean, share.error) == pytest.approx(expected, abs=1e-12)
            gap = reading.below_best(layer)
            assert gap.mean == pytest.approx(best.mean() - single.mean(), abs=1e-12)
            assert gap.error == pytest.approx(difference(best - single).error, abs=1e-12)
    assert "below the base model" in reading.refusal and not reading.sweep.contributions
    nothing = read_sweep(sweep_of([0.0, 0.0, -0.01], noise=0.2))
    assert "nothing to rank" in nothing.nothing_gained


@pytest.fixture
def with_full_gains(made, sweep_of):
    """`with_full_gains(gains, error)`: what such a sweep is read to say."""

    def make(gains, error=0.02):
        """A sweep whose full runs gain these, one for each seed, each with this standard error."""
        prompts = 50
        generator = np.random.default_rng(0)
        records = sweep_of([0.1, 0.3, 0.2], seeds=len(gains), prompts=prompts, noise=0.0)
        base = np.array(records[0].prompt_scores)
        for seed, gain in enumerate(gains):
            noise = generator.standard_normal(prompts)
            noise = (noise - noise.mean()) / noise.std(ddof=1) * error * np.sqrt(prompts)
            (index,) = (
                i for i, r in enumerate(records) if (r.run.kind, r.run.seed) == ("full", seed)
            )
            records[index] = made("full", seed, scores=tuple(base + gain + noise))
        return read_sweep(records)

    return make


def test_full_runs_that_contradict_each_other_refuse_contributions(with_full_gains):
    """As on Gemma 3 at 3e-5: 1.00 with one seed, 0.14 with the other, from 0.51."""
    collapsed = with_full_gains([0.49, -0.37])
    assert "contradict each other, gaining +0.490 ± 0.020, -0.370 ± 0.020" in collapsed.refusal
    # The mean of these is clearly above zero, but one of them is not.
    assert "contradict" in with_full_gains([0.5, 0.5, 0.5, 0.5, -0.1]).refusal
    assert with_full_gains([0.5, 0.5, 0.5, 0.5, -0.1]).gain.mean > 3 * 0.1
    # Apart, but not by more than their mean; or by more, but within their errors.
    assert with_full_gains([0.5, 0.4, 0.3]).refusal is None
    assert with_full_gains([0.02, 0.1, 0.1, 0.1, 0.1], error=0.05).refusal is None
    assert "below the base model" in with_full_gains([-0.2, -0.3]).refusal
    assert "not more than two standard errors" in with_full_gains([0.01, 0.0]).refusal


def test_a_run_outside_a_sweep_is_itself_in_every_seed():
    generator = np.random.default_rng(0)
    base, full = generator.random((2, 3, 40)) * 0.2 + np.array([0.0, 0.5]).reshape(2, 1, 1)
    single = generator.random(40)
    measured = [Measured(s, (0, 1, 2), (), s.mean(axis=1)) for s in (base, full)]
    found = share(Measured.once(single), *measured)
    expected = by_hand(np.tile(single, (3, 1)), base, full)
    assert (found.mean, found.error) == pytest.approx(expected, rel=1e-9)


def test_a_share_of_a_bare_score_against_simulation():
    """Single and base are paired by prompt; the whole is drawn anew within its error."""
    generator = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(4000):
        shared = generator.uniform(0.2, 0.4, 60)
        single, base = (
            Measured.once(shared + gain + 0.1 * generator.standard_normal(60)) for gain in (0.3, 0)
        )
        whole = Score(0.7 + 0.015 * generator.standard_normal(), 0.015)
        share = share_of_score(single, base, whole)
        values.append(share.mean)
        errors.append(share.error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.05)
    assert share_of_score(single, base, Score(0.7)).error is None


def test_one_seed_has_no_noise_ceiling_and_failures_are_told(made, sweep_of):
    records = [*sweep_of([0.1, 0.2, 0.3], seeds=1), made("layer", layer=3, status="failed")]
    reading = read_sweep(records)
    assert reading.noise_ceiling is None
    assert reading.failed == {3: "its weights are not finite"}
    assert list(reading.layers) == [0, 1, 2]
    with pytest.raises(LayerpickError, match="no finished full run"):
        read_sweep([record for record in records if record.run.kind != "full"])


def test_the_error_of_a_contribution_is_the_scatter_of_repeated_sweeps(made):
    generator = np.random.default_rng(3)
    values, errors = [], []
    for _ in range(300):
        shared = generator.uniform(0.2, 0.4, 60)
        runs = [
            made(kind, 0, layer, tuple(shared + gain + 0.2 * generator.standard_normal(60)))
            for kind, layer, gain in (("base", None, 0), ("full", None, 0.4), ("layer", 0, 0.2))
        ]
        contribution = read_sweep(runs).contribution(0)
        values.append(contribution.mean)
        errors.append(contribution.error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


@given(
    st.integers(1, 4),
    st.integers(2, 30),
    st.floats(0, 0.5),
    st.integers(0, 1000),
)
def test_errors_join_prompts_and_seeds(seeds, prompts, spread, seed):
    generator = np.random.default_rng(seed)
    scores = generator.random((seeds, prompts)) + spread * generator.random((seeds, 1))
    score = difference(scores)
    by_prompt = np.std(scores.mean(axis=0), ddof=1) ** 2 / prompts
    by_seed = np.std(scores.mean(axis=1), ddof=1) ** 2 / seeds if seeds > 1 else 0.0
    assert score.mean == pytest.approx(scores.mean())
    assert score.error == pytest.approx(np.sqrt(by_prompt + by_seed))
