import numpy as np
import pytest
from scipy.stats import rankdata

from layerpick.calibration.judging.metrics import spearman
from layerpick.calibration.predictors.candidates import (
    CANDIDATES,
    FAMILIES,
    from_settings,
    settings_of,
)
from layerpick.calibration.predictors.design import DEPTH, make_design
from layerpick.calibration.predictors.estimator import ContributionEstimator, fitted, inputs
from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.predictors.regressors import (
    DepthRegressor,
    GradientAndGains,
    PairwiseRanker,
    RidgeRegressor,
    Rows,
    UnitWeights,
    strongest,
)
from layerpick.training.errors import LayerpickError

ONE_OF_EACH = list({type(each): each for each in CANDIDATES}.values())


@pytest.fixture
def rows() -> Rows:
    """12 sweeps of 6 layers; column 7 is the target, roughly."""
    generator = np.random.default_rng(0)
    columns = generator.normal(size=(72, 30))
    targets = 0.3 * columns[:, 7] + 0.05 * generator.normal(size=72)
    weights = generator.uniform(0.5, 1.5, size=72)
    return Rows(columns, targets, weights / weights.mean(), np.repeat(np.arange(12), 6))


@pytest.mark.parametrize("regressor", ONE_OF_EACH, ids=lambda each: each.name)
def test_every_family_finds_the_signal_and_repeats_itself(regressor, rows):
    new = np.random.default_rng(1).normal(size=(200, 30))
    predicted = regressor.fit(rows)(new)
    assert predicted.shape == (200,) and np.isfinite(predicted).all()
    assert (predicted == regressor.fit(rows)(new)).all()
    if not isinstance(regressor, DepthRegressor | UnitWeights):  # one sees depth, one needs several
        assert spearman(new[:, 7], predicted) > 0.8


def test_ridge_against_the_normal_equations(rows):
    predict = RidgeRegressor(alpha=5.0, keep=400).fit(rows)
    weights = rows.weights / rows.weights.sum()
    x = rows.columns - weights @ rows.columns
    y = rows.targets - weights @ rows.targets
    weighted = x * rows.weights[:, None]
    slope = np.linalg.solve(weighted.T @ x + 5.0 * np.eye(30), weighted.T @ y)
    new = np.random.default_rng(2).normal(size=(9, 30))
    expected = (new - weights @ rows.columns) @ slope + weights @ rows.targets
    assert predict(new) == pytest.approx(expected)


def test_unit_weights_average_noisy_copies_of_one_signal():
    generator = np.random.default_rng(0)
    signal = generator.normal(size=400)
    columns = generator.normal(size=(400, 30))
    signs = np.array([1, -1, 1, 1, -1, 1, 1, -1])
    columns[:, 5:13] += signal[:, None] * signs
    columns *= generator.uniform(0.1, 10, size=30)  # units must not matter
    targets = 0.3 * signal
    rows = Rows(columns[:200], targets[:200], np.ones(200), np.repeat(np.arange(40), 5))
    predicted = UnitWeights(8).fit(rows)(columns[200:])
    # By hand: a mean of eight has a noise variance of 1/8, and a least-squares slope leaves
    # 1 / (1 + 8) of the signal's variance unexplained.
    left = ((predicted - targets[200:]) ** 2).mean() / targets[200:].var()
    assert left == pytest.approx(1 / 9, rel=0.25)


def test_depth_sees_nothing_but_depth(rows):
    predict = DepthRegressor(alpha=3.0).fit(rows)
    other = rows.columns + 100.0
    other[:, DEPTH] = rows.columns[:, DEPTH]
    assert predict(other) == pytest.approx(predict(rows.columns))


def test_pairs_are_compared_within_a_sweep_only(rows):
    """What is common to a sweep cannot teach a ranker of pairs."""
    shifted = Rows(rows.columns, rows.targets + 10 * rows.sweeps, rows.weights, rows.sweeps)
    ranker = PairwiseRanker(inverse_penalty=0.1, keep=400)
    assert ranker.fit(shifted)(rows.columns) == pytest.approx(ranker.fit(rows)(rows.columns))


def test_a_ranker_of_equals_predicts_nothing(rows):
    equal = Rows(rows.columns, np.zeros(72), rows.weights, rows.sweeps)
    assert PairwiseRanker(0.1, 12).fit(equal)(rows.columns).tolist() == [0] * 72


def test_strongest_columns_against_weighted_correlations(rows):
    correlation = [
        np.cov(rows.columns[:, k], rows.targets, aweights=rows.weights) for k in range(30)
    ]
    strength = [abs(c[0, 1]) / np.sqrt(c[0, 0]) for c in correlation]
    assert strongest(rows, 5).tolist() == sorted(np.argsort(strength)[-5:].tolist())
    assert 7 in strongest(rows, 1)


def test_settings_survive_json():
    for regressor in CANDIDATES:
        assert from_settings(settings_of(regressor)) == regressor
    assert len({str(each) for each in CANDIDATES}) == len(CANDIDATES)
    assert set(FAMILIES) >= {"ridge", "gaussian process", "gradient boosting", "random forest"}
    for wrong in ({"name": "oracle"}, {"name": "ridge", "wings": 2}, {}):
        with pytest.raises(LayerpickError, match="calibrate"):
            from_settings(wrong)


def test_means_of_sweeps_and_deviations_are_fitted_apart(made_examples):
    """With no signal among the layers, a sweep's predictions scatter little about their mean."""
    examples = made_examples(12)
    for example in examples:
        example.contributions[:] = example.base_reward  # the same in all layers
    design = make_design(examples, LEVELS["backward"])
    estimator = fitted(design, RidgeRegressor(30.0, 48))
    predicted = estimator.predict(inputs(design))
    by_sweep = [predicted[design.sweeps == sweep] for sweep in range(12)]
    assert max(np.ptp(values) for values in by_sweep) < 1e-9
    means = np.array([values[0] for values in by_sweep])
    assert spearman(means, np.array([example.base_reward for example in examples])) > 0.9


def test_weights_of_any_scale_fit_alike(made_examples):
    design = make_design(made_examples(6), LEVELS["weights"])
    x, y = inputs(design), design.targets
    fits = [
        ContributionEstimator(RidgeRegressor(30.0, 48)).fit(x, y, scale * design.weights)
        for scale in (1.0, 1000.0)
    ]
    assert fits[0].predict(x) == pytest.approx(fits[1].predict(x))


def test_the_order_known_before_needs_no_sweeps_to_agree_with_it(made_examples):
    """Contributions that fall with the relative gradient norm do not turn the order round."""
    examples = made_examples(6)
    for example in examples:
        example.features["gradient"]["relative_gradient_norm"] = -example.contributions
    design = make_design(examples, LEVELS["backward"])
    found = fitted(design, GradientAndGains()).predict(inputs(design))
    for sweep, example in enumerate(examples):
        own = found[design.sweeps == sweep]
        assert spearman(example.features["gradient"]["relative_gradient_norm"], own) > 0.99
    # As if ranks and contributions correlated by 0.6.
    scatter = np.std([f - m for f, m in _deviations(design, design.targets)])
    made = np.std([f - m for f, m in _deviations(design, found)])
    assert made / scatter == pytest.approx(0.6, rel=0.25)


def test_what_training_gained_counts_as_much_as_the_gradient_does(made_examples):
    examples = made_examples(6)
    generator = np.random.default_rng(1)
    for example in examples:
        gradient, step, five = generator.normal(size=(3, example.layers))
        example.features["gradient"]["relative_gradient_norm"] = gradient
        example.features["one_step"]["long_step_gain"] = step
        example.features["off_policy"]["off_policy_5_gain"] = five
    known = ("relative_gradient_norm", "long_step_gain", "off_policy_5_gain")
    for level, count in (("backward", 1), ("one_step", 2), ("off_policy", 3)):
        design = make_design(examples, LEVELS[level])
        assert GradientAndGains.known(design.features) == list(known[:count])
        found = fitted(design, GradientAndGains()).predict(inputs(design))
        shares = [
            sum(rankdata(example.by_name[name]) for name in known[:count]) / (example.layers - 1)
            for example in examples
        ]
        expected, made = (
            [value - mean for value, mean in _deviations(design, values)]
            for values in (np.concatenate(shares), found)
        )
        assert np.corrcoef(expected, made)[0, 1] == pytest.approx(1)


def _deviations(design, values):
    for sweep in np.unique(design.sweeps):
        own = values[design.sweeps == sweep]
        yield from ((value, own.mean()) for value in own)
