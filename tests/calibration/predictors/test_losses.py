"""What picks lose: stated by draws, scaled by what earlier picks lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.calibration.predictors.base import Prediction
from layerpick.calibration.predictors.losses import (
    AS_DRAWN,
    HELD,
    LossScale,
    PastPick,
    learn_scale,
    shortlist,
    stated_loss,
    thinned,
)


def test_chances_of_being_best_count_wins():
    draws = np.array([[0.1, 0.2, 0.0], [0.5, 0.1, 0.2], [0.0, 0.3, 0.2], [0.0, 1.0, 0.2]])
    prediction = Prediction(draws[0], draws[0], draws[0], draws, 0.8, "made up")
    assert prediction.chance_best.tolist() == [0.25, 0.75, 0.0]


def test_the_stated_loss_by_hand():
    draws = np.array([[1.0, 2.0], [3.0, 1.0], [0.0, 0.0]])
    assert stated_loss(draws, 0) == pytest.approx(1 / 3)
    assert stated_loss(draws, 1) == pytest.approx(2 / 3)


def test_losses_are_scaled_to_what_was_lost_every_group_with_the_same_say():
    past = [PastPick(0.1, 0.05, "a", 4), PastPick(0.1, 0.05, "a", 4), PastPick(0.2, 0.4, "b", 6)]
    # The two groups lost half as much again as was stated; a third would lose just that.
    ratio = (0.05 + 0.4) / (0.1 + 0.2)
    assert learn_scale(past).expected == pytest.approx((2 * ratio + 1) / 3)
    assert learn_scale(past).bound == pytest.approx(2.0)
    assert learn_scale(past).layers == 6
    assert learn_scale([]) == AS_DRAWN


def test_many_layers_state_no_more_than_as_few_as_were_measured():
    """Twenty draws alike: the best of all is further up than the best of five and the pick."""
    draws = np.random.default_rng(0).normal(size=(4000, 20))
    kept, pick = thinned(draws, 7, 5)
    assert (kept == draws[:, [0, 5, 7, 10, 14, 19]]).all() and pick == 2
    assert stated_loss(kept, pick) < 0.75 * stated_loss(draws, 7)
    for most in (None, 20):
        assert thinned(draws, 7, most)[0] is draws
    scale = LossScale(2.0, 3.0, 5)
    made = Prediction(np.eye(20)[7], draws[0], draws[0], draws, 0.8, "made up", loss_scale=scale)
    assert made.expected_loss == 2 * stated_loss(kept, pick)
    assert made.loss_bound == 3 * stated_loss(kept, pick)


def test_a_sure_pick_that_was_wrong_leaves_bounds_finite():
    assert learn_scale([PastPick(0.0, 0.3, "a", 4)]).bound == pytest.approx(30)


@given(st.integers(0, 1000))
def test_the_bound_holds_as_often_as_it_says(seed):
    """On groups drawn alike, whatever the spread: over many drawings of ten past picks."""
    generator = np.random.default_rng(seed)
    held = []
    for _ in range(400):
        stated = generator.uniform(0.05, 0.5, 20)
        lost = stated * generator.exponential(size=20)
        past = [
            PastPick(s, x, str(i), 4) for i, (s, x) in enumerate(zip(stated, lost, strict=True))
        ]
        held.append(lost[-1] <= learn_scale(past[:-1]).bound * stated[-1])
    # 5 standard errors of 400 trials, above the nominal by at most 1 / 20.
    error = 5 * np.sqrt(HELD * (1 - HELD) / 400)
    assert HELD - error <= np.mean(held) <= HELD + 1 / 20 + error


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=40))
def test_shortlists_are_the_fewest_likeliest_layers(chances):
    chance_best = np.array(chances) / np.sum(chances)
    near = list(shortlist(chance_best))
    assert chance_best[near].sum() >= 0.8 - 1e-6
    assert chance_best[near[:-1]].sum() < 0.8
    assert chance_best[near].min() >= np.delete(chance_best, near).max(initial=0)
    assert near[0] == chance_best.argmax()


def test_a_prediction_of_some_layers_is_as_if_there_were_no_others():
    draws = np.random.default_rng(0).normal([0.5, 0.9, 0.4], 0.1, size=(2000, 3))
    point = draws.mean(axis=0)
    whole = Prediction(point, point - 0.1, point + 0.1, draws, 0.8, "made up")
    assert whole.pick == 1 and whole.chance_best[1] > 0.99 and whole.expected_loss < 0.01
    part = whole.only(np.array([0, 2]))
    assert part.pick == 0 and part.chance_best.sum() == pytest.approx(1)
    assert part.expected_loss == pytest.approx(np.maximum(draws[:, 2] - draws[:, 0], 0).mean())
    assert part.loss_bound >= 0
