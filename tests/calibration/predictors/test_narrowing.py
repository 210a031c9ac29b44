"""Which layers go on to dear probes, and what becomes of those that do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.calibration.predictors.base import Prediction
from layerpick.calibration.predictors.narrowing import join, still_possible


def prediction(chances, contribution=None) -> Prediction:
    """With as many draws won by each layer as its chance says, of a thousand."""
    chances = np.asarray(chances, float)
    won = np.repeat(np.arange(len(chances)), np.round(1000 * chances / chances.sum()).astype(int))
    values = chances if contribution is None else np.asarray(contribution, float)
    draws = np.tile(values, (len(won), 1))
    draws[np.arange(len(won)), won] = values.max() + 1
    return Prediction(values, values - 0.1, values + 0.1, draws, 0.8, "made up")


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=40))
def test_those_that_go_on_are_the_likeliest_and_the_others_cannot_be_best(chances):
    asked = prediction(chances)
    kept = still_possible(asked)
    assert list(kept) == sorted(kept)
    others = np.delete(asked.chance_best, kept)
    assert asked.chance_best[list(kept)].min() >= others.max(initial=0)
    assert others.sum() <= 0.02 + 1e-9
    if len(kept) > 2:
        assert others.sum() + asked.chance_best[list(kept)].min() > 0.02 - 1e-9
    again = still_possible(asked, kept)
    assert set(again) <= set(kept)


def test_a_sure_thing_has_one_rival():
    assert still_possible(prediction([0.001, 0.99, 0.009, 0.0])) == (1, 2)


def test_layers_that_left_keep_their_distance_from_those_that_went_on():
    before = prediction([0.4, 0.4, 0.2], [0.5, 0.6, 0.1])
    after = prediction([0.1, 0.9, 0.0], [0.7, 0.9, -5.0])
    joined = join(before, after, (0, 1))
    assert joined.contribution.tolist() == pytest.approx([0.7, 0.9, 0.1 + 0.25])
    assert joined.low.tolist() == pytest.approx([0.6, 0.8, 0.0 + 0.25])
    moved = (after.draws - before.draws)[:, :2].mean(axis=1)
    assert joined.draws[:, 2] == pytest.approx(before.draws[:, 2] + moved)
    assert (joined.draws[:, :2] == after.draws[:, :2]).all()
    assert join(before, after, None) is after


def test_what_has_left_is_never_picked():
    before = prediction([0.1, 0.1, 0.8], [0.5, 0.5, 2.0])
    joined = join(before, prediction([0.5, 0.5, 0.0], [0.4, 0.5, 0.0]), (0, 1))
    assert joined.pick == 1 and joined.contribution[2] == pytest.approx(0.5)
