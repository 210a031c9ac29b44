"""The estimator: sweeps have the same say, whatever their scatter and number of rows."""

from dataclasses import replace

import numpy as np
import pytest

from layerpick.calibration.predictors.design import make_design
from layerpick.calibration.predictors.estimator import ContributionEstimator, inputs
from layerpick.calibration.predictors.intervals import ConformalRegressor
from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.predictors.regressors import RidgeRegressor

LEVEL = LEVELS["weights"]
RIDGE = RidgeRegressor(alpha=5.0, keep=400)


def with_contributions(example, values, **others):
    return replace(example, contributions=values, **others)


def stretched(example, factor):
    mean = example.contributions.mean()
    return with_contributions(example, mean + factor * (example.contributions - mean))


def deviations(design, asked):
    X, y = inputs(design), design.targets  # noqa: N806
    predicted = ContributionEstimator(RIDGE).fit(X, y, design.weights).predict(asked)
    return predicted - predicted.mean()


def test_a_sweep_of_large_scatter_has_no_more_say(made_examples):
    examples = made_examples(6)
    plain = make_design(examples, LEVEL)
    wide = make_design([stretched(examples[0], 10.0), *examples[1:]], LEVEL)
    asked = inputs(plain)[plain.sweeps == 5]
    # Every model weighs the same, so the typical scatter grows by the sixth root of ten.
    assert deviations(wide, asked) == pytest.approx(10 ** (1 / 6) * deviations(plain, asked))


def test_a_sweep_without_any_scatter_does_no_harm(made_examples):
    examples = made_examples(6)
    flat = with_contributions(examples[0], np.full(examples[0].layers, 0.4))
    design = make_design([flat, *examples[1:]], LEVEL)
    assert np.isfinite(deviations(design, inputs(design))).all()


def test_repeated_rows_count_once(made_examples):
    design = make_design(made_examples(5), LEVEL)
    X, y, weights = inputs(design), design.targets, design.weights  # noqa: N806
    twice = np.r_[np.arange(len(y)), np.flatnonzero(design.sweeps == 2)]
    once = ContributionEstimator(RIDGE).fit(X, y, weights).predict(X)
    again = ContributionEstimator(RIDGE).fit(X[twice], y[twice], weights[twice]).predict(X)
    assert again == pytest.approx(once)


def test_a_model_with_many_layers_does_not_decide_the_width(made_examples):
    """One model of 120 layers that nothing predicts, among eleven that are predicted well."""
    generator = np.random.default_rng(0)
    examples = made_examples(12)
    many = 120
    wild = with_contributions(
        examples[0],
        generator.normal(0.5, 2.0, many),
        errors=np.full(many, 0.05),
        features={
            probe: {name: generator.normal(size=many) for name in own}
            for probe, own in examples[0].features.items()
        },
    )
    calm, mixed = make_design(examples[1:], LEVEL), make_design([wild, *examples[1:]], LEVEL)
    columns = calm.columns[calm.sweeps == 0]
    widths = []
    for design in (calm, mixed):
        conformal = ConformalRegressor(design, RIDGE)
        assert conformal.residuals.shape == design.targets.shape
        _, low, high = conformal.predict(columns)
        widths.append((high - low).mean())
    assert widths[1] < 2 * widths[0]
