"""Intervals, and the predictor as it is stored."""

import json
from dataclasses import replace

import numpy as np
import pytest

from layerpick.calibration.predictors import choice, stored
from layerpick.calibration.predictors.calibrated import WIDEST, CalibratedPredictor
from layerpick.calibration.predictors.choice import Lesson
from layerpick.calibration.predictors.design import columns_of, make_design
from layerpick.calibration.predictors.estimator import fitted
from layerpick.calibration.predictors.intervals import COVERAGE, ResidualDraws
from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.predictors.regressors import (
    DepthRegressor,
    RandomForest,
    RidgeRegressor,
)
from layerpick.calibration.predictors.stored import (
    available_predictors,
    best_predictor,
    calibrate,
    load_predictors,
    user_predictors,
    write_predictor,
)
from layerpick.calibration.sweeps.population import POPULATIONS
from layerpick.training.errors import LayerpickError

RIDGE = Lesson(RidgeRegressor(30.0, 12))
DEPTH = Lesson(DepthRegressor(3.0))


@pytest.fixture
def few_candidates(monkeypatch):
    """Fast choices, where the choice itself is not what is tested."""
    monkeypatch.setattr(choice, "CANDIDATES", (DEPTH.regressor, RIDGE.regressor))


def test_intervals_hold_their_share_of_models_never_seen(made_examples):
    held, better = [], []
    for seed in range(16):  # how much is covered differs between sets of 24 models by 0.06
        everything = made_examples(36, seed=seed)
        predictor = CalibratedPredictor(make_design(everything[:24], LEVELS["weights"]), RIDGE)
        for example in everything[24:]:
            found = predictor.predict(example.layer_features(), 0)
            inside = (found.low <= example.contributions) & (example.contributions <= found.high)
            held.append(inside.mean())
            better.append(found.chance_best[example.contributions.argmax()] * example.layers)
    assert np.mean(held) == pytest.approx(COVERAGE, abs=0.06)
    assert np.mean(better) > 1.5  # the layer that is best had more than its even share of chance


def test_chances_of_being_best_come_true(made_examples):
    """Over many models, layers said to be best with chance p are so about p of the time."""
    everything = made_examples(150, seed=5)
    predictor = CalibratedPredictor(make_design(everything[:30], LEVELS["weights"]), RIDGE)
    said, came = [], []
    for example in everything[30:]:
        chance = predictor.predict(example.layer_features(), 0).chance_best
        said.append(chance.max())
        came.append(example.contributions.argmax() == chance.argmax())
    assert np.mean(came) == pytest.approx(np.mean(said), abs=0.12)


def test_past_picks_are_those_foretold_where_that_is_known(made_examples):
    design = make_design(made_examples(6), LEVELS["weights"])
    plain = CalibratedPredictor(design, RIDGE).past_picks()
    upside_down = np.where(design.sweeps == 2, -design.targets, np.nan)
    found = CalibratedPredictor(replace(design, foretold=upside_down), RIDGE).past_picks()
    pairs = enumerate(zip(plain, found, strict=True))
    assert [number for number, (before, after) in pairs if before != after] == [2]
    assert found[2].lost == np.ptp(design.targets[design.sweeps == 2])


def test_residual_draws_part_shift_from_own():
    generator = np.random.default_rng(0)
    sweeps = np.repeat(np.arange(400), 5)
    residuals = generator.normal(0, 0.3, 400)[sweeps] + generator.normal(0, 0.1, 2000)
    draws = ResidualDraws(residuals, np.zeros(2000), sweeps)
    drawn = draws.draw(5, 20_000, generator)
    # By hand: variances add, and layers of one draw share the shift alone. A mean of five layers
    # keeps a fifth of their own variance.
    assert drawn.var() == pytest.approx(0.09 + 0.01 / 5 + 0.01, rel=0.1)
    assert (drawn - drawn.mean(axis=1, keepdims=True)).var() == pytest.approx(0.008, rel=0.1)
    shared = np.cov(drawn[:, 0], drawn[:, 1])[0, 1]
    assert shared == pytest.approx(0.09 + 0.01 / 5, rel=0.1)


def test_measurement_error_is_taken_off_the_own_part():
    generator = np.random.default_rng(0)
    sweeps = np.repeat(np.arange(500), 4)
    residuals = generator.normal(0, 0.1, 2000) + generator.normal(0, 0.1, 2000)
    draws = ResidualDraws(residuals, np.full(2000, 0.1), sweeps)
    assert np.std(draws.own) == pytest.approx(0.1, rel=0.1)
    assert np.std(ResidualDraws(residuals, np.full(2000, 9.0), sweeps).own) > 0.05


def test_models_far_from_what_was_seen_get_wider_intervals(made_examples):
    examples = made_examples(20)
    predictor = CalibratedPredictor(make_design(examples, LEVELS["weights"]), RIDGE)
    usual = predictor.predict(examples[0].layer_features(), 0)
    assert "outside calibration" not in usual.basis
    for odd in (
        replace(examples[0].layer_features(), probes={}, depth=np.linspace(0, 1, 200)),
        replace(examples[0].layer_features(), depth=examples[0].layer_features().depth + 40),
    ):
        found = predictor.predict(odd, 0)
        assert found.basis.startswith("outside calibration")
        assert (found.high - found.low).mean() > 1.5 * (usual.high - usual.low).mean()


def test_outside_calibration_depth_counts_and_so_do_probes(made_examples):
    predictor = CalibratedPredictor(make_design(made_examples(20), LEVELS["weights"]), RIDGE)
    asked = made_examples(21)[20].layer_features()
    odd = replace(asked, depth=asked.depth + 4)
    strangeness = predictor.strangeness(odd)
    assert strangeness > 1
    columns = columns_of(odd, predictor.design.features, LEVELS["weights"])
    by_depth, by_all = (
        fitted(predictor.design, regressor).predict(
            np.column_stack([np.zeros(len(columns)), columns])
        )
        for regressor in (DEPTH.regressor, RIDGE.regressor)
    )
    share = 1 / min(strangeness, WIDEST)
    expected = share * by_all + (1 - share) * by_depth
    assert predictor.predict(odd, 0).contribution == pytest.approx(expected)


def test_a_reward_never_seen_is_outside_calibration(made_examples):
    examples = made_examples(20)
    predictor = CalibratedPredictor(make_design(examples, LEVELS["backward"]), RIDGE)
    asked = examples[0].layer_features()
    assert "outside" not in predictor.predict(asked, 0).basis
    assert "outside" in predictor.predict(replace(asked, base_reward=3.0), 0).basis


def test_a_stored_predictor_predicts_the_same(made_examples, tmp_path, few_candidates):
    examples = made_examples(6)
    made = calibrate(examples, LEVELS["backward"])
    path = write_predictor(made, tmp_path)
    assert path == tmp_path / "backward.json"
    again = load_predictors(tmp_path)["backward"]
    asked = made_examples(7)[6].layer_features()
    first, second = made.fit().predict(asked, 1), again.fit().predict(asked, 1)
    assert (first.contribution == second.contribution).all()
    assert (first.chance_best == second.chance_best).all()
    assert first.chance_best.sum() == pytest.approx(1)
    text = json.loads(path.read_text())
    lesson = text["lessons"]["pretrained"]
    assert lesson["regressor"] == {"name": "ridge", "alpha": 30.0, "keep": 12}
    assert "warm_up" not in text["examples"][0]["features"]
    # What was foretold without each of them is kept: what picks lose is learned from it.
    foretold = [example.foretold for example in made.fit().design.examples]
    assert foretold[0] == pytest.approx(examples[0].contributions, abs=0.5)
    assert made.fit().past_picks() == again.fit().past_picks()
    unrounded = CalibratedPredictor(make_design(examples, LEVELS["backward"]), RIDGE)
    assert unrounded.predict(asked, 1).contribution == pytest.approx(first.contribution, abs=1e-3)


def test_a_file_that_is_no_predictor_is_named(tmp_path):
    assert load_predictors(tmp_path) == {}
    (tmp_path / "weights.json").write_text("{}")
    with pytest.raises(LayerpickError, match=r"weights\.json"):
        load_predictors(tmp_path)


def test_the_dearest_predictor_that_the_features_allow(made_examples, few_candidates):
    examples = made_examples(5)
    made = {name: calibrate(examples, level) for name, level in LEVELS.items()}
    names = {probe: set(features) for probe, features in examples[0].features.items()}
    for level in LEVELS.values():
        measured = set().union(*(names[probe] for probe in level.probes))
        assert best_predictor(made, measured).level == level
    measured.discard("warm_up_signal")  # most of a probe is not enough
    assert best_predictor(made, measured).level.name == "off_policy"
    assert best_predictor(made, names["gradient"]) is None
    assert best_predictor({}, measured) is None


def test_own_predictors_come_before_the_shipped(
    made_examples, monkeypatch, tmp_path, few_candidates
):
    monkeypatch.setenv("LAYERPICK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "SHIPPED_PREDICTORS", tmp_path / "shipped")
    assert user_predictors() == tmp_path / "cache" / "predictors"
    for level in ("weights", "backward"):
        write_predictor(calibrate(made_examples(4), LEVELS[level]), tmp_path / "shipped")
    write_predictor(calibrate(made_examples(5), LEVELS["weights"]), user_predictors())
    found = available_predictors()
    assert {name: len(each.examples) for name, each in found.items()} == {
        "weights": 5,
        "backward": 4,
    }


def test_too_few_models_are_refused(made_examples):
    with pytest.raises(LayerpickError, match="at least 3 models"):
        calibrate(made_examples(2), LEVELS["weights"])


def test_a_predictor_of_many_models_and_features_stays_small(made_examples, tmp_path):
    """With the largest regressor and as many models and features as are shipped."""
    generator = np.random.default_rng(0)
    examples = made_examples(20)
    for example in examples:
        for probe, own in example.features.items():
            own.update({f"{probe}{k}": generator.normal(size=example.layers) for k in range(25)})
    level = LEVELS["on_policy"]
    design = make_design(examples, level)
    slowest = choice.Choice(Lesson(RandomForest(60, 4, 48)), {}, design.targets)
    choices = dict.fromkeys(POPULATIONS, slowest)
    path = write_predictor(stored._put_together(design, choices), tmp_path)
    assert len(design.targets) > 100 and path.stat().st_size < 700_000
    found = load_predictors(tmp_path)["on_policy"].fit().predict(examples[0].layer_features(), 0)
    assert len(found.contribution) == examples[0].layers


def test_predictions_say_which_kinds_of_sweeps_they_rest_on(made_examples, tmp_path):
    shared, own = made_examples(3), made_examples(6, rates="own")[3:]
    for examples, rates in (
        (shared, ("shared",)),
        (own, ("own",)),
        ([*shared, *own], ("own", "shared")),
    ):
        path = write_predictor(calibrate(examples, LEVELS["weights"]), tmp_path)
        loaded = load_predictors(path.parent)["weights"].fit()
        assert loaded.predict(own[0].layer_features(), 0).rates == rates
    # A file written before there were two kinds.
    written = json.loads(path.read_text())
    for example in written["examples"]:
        del example["rates"]
    path.write_text(json.dumps(written))
    loaded = load_predictors(path.parent)["weights"].fit()
    assert loaded.predict(own[0].layer_features(), 0).rates == ("shared",)


def test_a_model_is_not_asked_about_its_own_lessons(made_examples):
    kept = calibrate(made_examples(5), LEVELS["weights"])
    everyone, others = kept.fit(), kept.fit(without="hash-2")
    assert {example.weights_hash for example in everyone.design.examples} >= {"hash-2"}
    assert "hash-2" not in {example.weights_hash for example in others.design.examples}
    assert "4 models" in others.predict(made_examples(5)[2].layer_features(), 0).basis


def test_influences_are_what_each_feature_adds(made_examples):
    """With a linear rule they add up to the deviations of the prediction from its mean."""
    examples = made_examples(6)
    design = make_design(examples, LEVELS["backward"])
    lesson = Lesson(RidgeRegressor(alpha=1.0, keep=len(design.features)))
    predictor = CalibratedPredictor(design, lesson)
    asked = examples[0].layer_features()
    effects = predictor.influences(asked)
    assert set(effects) == {"depth", *design.features}
    whole = fitted(predictor.design, lesson.regressor).predict(
        np.column_stack(
            [np.zeros(examples[0].layers), columns_of(asked, design.features, design.level)]
        )
    )
    assert sum(effects.values()) == pytest.approx(whole - whole.mean(), abs=1e-6)
