"""Each policy's own rate: chosen on one half of the held-out prompts, scored on the other."""

from __future__ import annotations

import numpy as np
import pytest

from layerpick.calibration.sweeps.measured import read_sweep
from layerpick.calibration.sweeps.rates import chosen_rates, cross_fitted
from layerpick.training.errors import LayerpickError

GRID = (1e-5, 1e-4)


def test_no_prompt_has_a_say_in_the_rate_that_it_is_scored_at():
    scores = np.random.default_rng(0).random((3, 2, 7))
    chosen = chosen_rates(scores)
    fitted = cross_fitted(scores)
    for prompt in range(7):
        others = [p for p in range(7) if p % 2 != prompt % 2]
        best = max(range(3), key=lambda rate: np.mean([scores[rate][:, p] for p in others]))
        assert chosen[prompt % 2] == best
        assert fitted[:, prompt].tolist() == scores[best][:, prompt].tolist()
        changed = scores.copy()
        changed[:, :, prompt] = 100 * np.random.default_rng(prompt).random((3, 2))
        assert chosen_rates(changed)[prompt % 2] == best


def test_scores_are_not_raised_by_choosing_among_equals():
    """Five equal rates, 4,000 policies: the best of five is far above the truth."""
    scores = 0.5 + 0.2 * np.random.default_rng(0).standard_normal((4000, 5, 1, 40))
    error = 0.2 / np.sqrt(40 * 4000)
    assert abs(np.mean([cross_fitted(policy).mean() for policy in scores]) - 0.5) < 4 * error
    assert scores.mean(axis=(2, 3)).max(axis=1).mean() > 0.5 + 40 * error


@pytest.fixture
def own(made):
    """`own(kind, layer, seed, rate)`: the record of a run of a sweep at own rates."""

    def make(kind, layer=None, seed=0, rate=1e-5, **others):
        record = made(kind, seed=seed, layer=layer, rate=rate, rates="own", **others)
        return record.model_copy(update={"learning_rate_grid": GRID})

    return make


@pytest.fixture
def complete(own):
    """Two seeds of two layers at two rates; layer 0 wants the low rate, layer 1 the high one."""
    gains = {(0, 1e-5): 0.4, (0, 1e-4): 0.1, (1, 1e-5): 0.2, (1, 1e-4): 0.6}
    base = np.array([0.1, 0.2, 0.3, 0.2])
    records = []
    for seed in (0, 1):
        records.append(own("base", seed=seed, scores=base))
        records += [own("full", seed=seed, rate=rate, scores=base + 0.5) for rate in GRID]
        records += [
            own("layer", layer, seed, rate, scores=base + gain + 0.01 * seed)
            for (layer, rate), gain in gains.items()
        ]
    return records


def test_every_layer_is_read_at_its_own_rate(complete):
    reading = read_sweep(complete)
    assert reading.learning_rate is None and reading.learning_rate_grid == GRID
    assert reading.full.rates == (1e-5, 1e-5)  # equal: the lower one
    assert reading.in_words == "2 seeds, each policy at its own learning rate"
    assert [reading.layers[layer].rates for layer in (0, 1)] == [(1e-5,) * 2, (1e-4,) * 2]
    assert reading.contribution(0).mean == pytest.approx(0.405 / 0.5)
    assert reading.contribution(1).mean == pytest.approx(0.605 / 0.5)
    assert reading.layers[1].seeds == (0, 1)


def test_halves_may_choose_differently_and_seeds_alone_too(complete, own):
    low = own("layer", 0, rate=1e-5, scores=(1.0, 0.0, 1.0, 0.0))
    high = own("layer", 0, rate=1e-4, scores=(0.2, 0.8, 0.2, 0.6))
    rest = [record for record in complete if record.run.layer is None]
    layer = read_sweep([*rest, low, high]).layers[0]
    # The even prompts choose the low rate for the odd ones, and the odd ones the high rate.
    assert layer.rates == (1e-4, 1e-5)
    assert layer.scores.tolist() == [[0.2, 0.0, 0.2, 0.0]]
    assert layer.alone == pytest.approx([0.1])


def test_policies_count_once_they_were_trained_at_every_rate(complete):
    one_seed = [r for r in complete if (r.run.layer, r.run.seed) != (1, 1)]
    reading = read_sweep(one_seed)
    assert reading.layers[1].seeds == (0,) and reading.unfinished == ()
    one_rate = [r for r in complete if r.run.layer != 1 or r.run.learning_rate == 1e-5]
    reading = read_sweep(one_rate)
    assert list(reading.layers) == [0] and reading.unfinished == (1,)
    with pytest.raises(LayerpickError, match="no finished layer"):
        read_sweep([r for r in complete if r.run.layer is None or r.run.learning_rate == 1e-5])


def test_a_race_leaves_layers_at_a_rate_that_is_not_the_sweeps(complete, own):
    raced = own("layer", 1, seed=0, rate=3e-5, scores=(0.9,) * 4)
    raced = raced.model_copy(update={"learning_rate_grid": (3e-5,)})
    before, after = read_sweep(complete), read_sweep([*complete, raced])
    assert after.learning_rate_grid == GRID and after.unfinished == ()
    assert after.layers[1].scores.tolist() == before.layers[1].scores.tolist()


def test_a_sweep_whose_full_run_lacks_a_rate_is_not_finished(complete):
    """Other processes may have measured every layer by then."""
    begun = [r for r in complete if (r.run.kind, r.run.learning_rate) != ("full", 1e-4)]
    with pytest.raises(LayerpickError, match="no finished full run"):
        read_sweep(begun)


def test_a_rate_that_fails_in_one_seed_is_not_chosen(complete, own):
    records = [r for r in complete if r.run.layer != 1]
    records += [own("layer", 1, seed, 1e-5, scores=(0.5,) * 4) for seed in (0, 1)]
    records += [own("layer", 1, 0, 1e-4, scores=(0.9,) * 4)]
    broken = own("layer", 1, 1, 1e-4, status="failed")
    reading = read_sweep([*records, broken])
    assert reading.layers[1].rates == (1e-5, 1e-5)
    assert reading.layers[1].failures == ("its weights are not finite",)
    gone = [own("layer", 0, 1, rate, status="failed") for rate in GRID]
    kept = [r for r in records if (r.run.layer, r.run.seed) != (0, 1)]
    assert read_sweep([*kept, broken, *gone]).failed == {0: "its weights are not finite"}
