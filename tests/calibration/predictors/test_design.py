from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from layerpick.calibration.predictors.base import LayerFeatures
from layerpick.calibration.predictors.design import (
    CLIP,
    SWEEP,
    TAU,
    columns_of,
    make_design,
    ranks,
    reliability,
    usable,
    z_scores,
)
from layerpick.calibration.predictors.levels import LEVELS

VALUES = arrays(
    float, st.integers(1, 20), elements=st.integers(-1000, 1000).map(lambda n: n / 8), unique=True
)


@given(VALUES)
def test_ranks_forget_every_increasing_function(values):
    expected = ranks(values)
    assert ranks(np.exp(values / 200)) == pytest.approx(expected)
    assert ranks(5 * values - 3) == pytest.approx(expected)
    assert ranks(-values) == pytest.approx(-expected)
    if len(values) > 1:
        assert (expected.min(), expected.max()) == (-1, 1)
        assert expected.argmax() == values.argmax()


@given(VALUES, st.sampled_from([1e-12, 0.5, 3.0, 1e9]), st.integers(-5, 5))
def test_z_scores_forget_unit_and_origin(values, unit, origin):
    expected = z_scores(values)
    assert z_scores(unit * (values + origin)) == pytest.approx(expected, abs=1e-6)
    assert z_scores(-values) == pytest.approx(-expected)
    assert (np.abs(expected) <= CLIP).all()


@given(VALUES, st.randoms())
def test_order_of_the_layers_does_not_matter(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    assert ranks(values[order]) == pytest.approx(ranks(values)[order])
    assert z_scores(values[order]) == pytest.approx(z_scores(values)[order], abs=1e-9)


def test_ranks_and_z_scores_by_hand():
    assert ranks(np.array([3.0, 1.0, 1.0, 9.0])).tolist() == pytest.approx(
        [1 / 3, -2 / 3, -2 / 3, 1]
    )
    assert z_scores(np.array([1.0, 3.0])).tolist() == pytest.approx([-1, 1])
    assert ranks(np.full(4, 7.0)).tolist() == z_scores(np.full(4, 7.0)).tolist() == [0] * 4
    gap = np.array([1.0, np.nan, 2.0])
    assert ranks(gap).tolist() == z_scores(gap).tolist() == pytest.approx([-1, 0, 1])


def test_huge_and_tiny_values_stay_finite():
    for values in (np.array([1e300, -1e300, 0.0]), np.array([1e-300, 2e-300, 0.0])):
        assert np.isfinite(z_scores(values)).all()


def test_reliability_by_hand():
    values = np.array([1.0, 2.0, 3.0])  # variance 1
    assert reliability(values, np.zeros(3)) == 1
    assert reliability(values, np.array([1.0, 0.0, 1.0])) == pytest.approx(0.6)
    assert reliability(values, np.array([np.nan, 1.0, 1.0])) == pytest.approx(1 / (1 + 1 / 0.5))
    assert reliability(np.full(3, 2.0), np.ones(3)) == pytest.approx(0, abs=1e-12)
    assert reliability(np.zeros(3), np.zeros(3)) == 1
    assert reliability(values[:1], np.ones(1)) == 1


@given(VALUES, st.sampled_from([1e-150, 0.5, 1e200]), st.floats(0, 10))
def test_reliability_is_a_share_without_unit_and_falls_with_the_error(values, unit, error):
    errors = np.full(len(values), error)
    found = reliability(values, errors)
    assert 0 <= found <= 1
    assert reliability(unit * values, unit * errors) == pytest.approx(found)
    assert reliability(values, 2 * errors) <= found


def test_errors_shrink_their_feature_and_are_none_themselves(made_examples):
    examples = made_examples(2)
    level = LEVELS["weights"]
    plain = make_design(examples, level)
    for example in examples:
        own = example.features["weights"]
        own["weights_noise_error"] = np.full(example.layers, own["weights_noise"].std(ddof=1))
    design = make_design(examples, level)
    assert design.features == plain.features == ("weights_more", "weights_noise", "weights_signal")
    halved = np.ones(plain.columns.shape[1])
    halved[-2] = 0.5
    assert design.columns == pytest.approx(plain.columns * halved)
    examples[0].features["weights"]["lone_error"] = np.arange(float(examples[0].layers))
    assert "lone_error" in make_design(examples[:1], level).features


def test_rows_are_the_measured_layers_and_every_model_counts_the_same(made_examples):
    examples = made_examples(4)
    examples[0].contributions[1] = np.nan
    examples[1] = replace(examples[1], weights_hash=examples[2].weights_hash)
    design = make_design(examples, LEVELS["backward"])
    assert len(design.targets) == sum(len(example.measured) for example in examples)
    for model in set(design.models):
        assert design.weights[design.models == model].sum() == pytest.approx(1)
    own = design.models == examples[1].weights_hash
    assert len(set(design.sweeps[own])) == 2


def test_noisier_layers_weigh_less(made_examples):
    (example,) = made_examples(1)
    example.errors[:] = 0.0
    example.errors[0] = TAU
    weights = make_design([example], LEVELS["weights"]).weights
    assert weights[0] / weights[1] == pytest.approx(0.5)


def test_features_that_an_example_lacks_are_left_out_and_named(made_examples):
    examples = made_examples(3)
    del examples[0].features["weights"]["weights_noise"]
    examples[1].features["weights"]["weights_more"][0] = np.nan
    design = make_design(examples, LEVELS["weights"])
    assert design.features == ("weights_signal",)
    assert design.lacking == {"weights_noise": 1, "weights_more": 1}


def test_examples_without_a_probe_do_not_take_its_features_from_the_others(made_examples):
    examples = made_examples(3)
    examples[0].features["gradient"].clear()
    assert not usable(examples[0], LEVELS["backward"])
    assert usable(examples[0], LEVELS["weights"])
    design = make_design(examples, LEVELS["backward"])
    assert len(design.examples) == 2 and "gradient_signal" in design.features


def test_a_model_is_described_alike_in_training_and_when_asked(made_examples):
    examples = made_examples(3)
    level = LEVELS["off_policy"]
    design = make_design(examples, level)
    asked = columns_of(examples[1].layer_features(), design.features, level)
    assert asked == pytest.approx(design.columns[design.sweeps == 1])


def test_what_is_unknown_counts_as_average():
    asked = LayerFeatures(np.linspace(0, 1, 3), {"known": np.arange(3.0)}, base_reward=0.4)
    columns = columns_of(asked, ("known", "unknown"), LEVELS["backward"])
    assert columns[:, 4:].tolist() == pytest.approx(
        np.column_stack([[-1, 0, 1], [0] * 3, z_scores(np.arange(3.0)), [0] * 3])
    )
    assert columns[0, SWEEP].tolist() == pytest.approx([0.4, np.log(3)])
    assert columns_of(asked, (), LEVELS["weights"])[0, 0] == 0  # no rollouts, no reward


def test_without_leaves_out_whole_models(made_examples):
    design = make_design(made_examples(4), LEVELS["weights"])
    rest = design.without(frozenset({"hash-1", "hash-3"}))
    assert set(rest.models) == {"hash-0", "hash-2"} == {e.weights_hash for e in rest.examples}
    assert set(rest.sweeps) == {0, 2} and len(rest.columns) == len(rest.targets)
