import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from layerpick.calibration.judging import metrics

NUMBERS = st.integers(-4, 4).map(float)
PAIRS = st.integers(3, 12).flatmap(
    lambda n: st.tuples(arrays(float, n, elements=NUMBERS), arrays(float, n, elements=NUMBERS))
)


@given(PAIRS)
def test_correlations_against_scipy(pair):
    first, second = pair
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert metrics.spearman(first, second) == metrics.kendall(first, second) == 0
        return
    assert metrics.spearman(first, second) == pytest.approx(stats.spearmanr(*pair).statistic)
    # τ_b by counting pairs
    agree = [
        np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])
        for i in range(len(first))
        for j in range(i)
    ]
    untied = [
        sum(values[i] != values[j] for i in range(len(first)) for j in range(i)) for values in pair
    ]
    expected = sum(agree) / np.sqrt(untied[0] * untied[1])
    assert metrics.kendall(first, second) == pytest.approx(expected)


def test_a_quadratic_in_depth_leaves_nothing():
    depth = np.linspace(0, 1, 8)
    assert metrics.without_depth(3 - depth + 5 * depth**2, depth).tolist() == [0] * 8
    assert metrics.without_depth(depth[:5], depth[:5]) is None
    values = np.array([0.3, 0.1, 0.9, 0.2, 0.5, 0.4, 0.8, 0.6])
    fitted = np.polyval(np.polyfit(depth, values, 2), depth)
    assert metrics.without_depth(values, depth) == pytest.approx(values - fitted)


def test_regret_recall_and_pick_by_hand():
    measured = np.array([0.2, 0.9, 0.7, 0.8, 0.1])
    predicted = np.array([0.5, 0.1, 0.9, 0.8, 0.2])
    assert metrics.regret(measured, predicted) == pytest.approx(0.2)  # picks 2: 0.9 − 0.7
    assert metrics.share_lost(measured, predicted) == pytest.approx(0.2 / 0.9)
    # Whatever the unit, as long as the base model is its zero.
    assert metrics.share_lost(3 * measured, predicted) == pytest.approx(0.2 / 0.9)
    assert metrics.share_lost(-measured, predicted) is None
    assert metrics.top_recall(measured, predicted) == pytest.approx(2 / 3)  # {1,3,2} and {2,3,0}
    layers = np.array([0, 2, 4, 6, 8])
    assert metrics.pick_in({4}, layers, predicted) == 1
    assert metrics.pick_in({2}, layers, predicted) == 0
    assert metrics.regret(measured, measured) == 0 and metrics.top_recall(measured, measured) == 1
