from dataclasses import replace

import numpy as np
import pytest

from layerpick.calibration.judging import accuracy
from layerpick.calibration.judging.accuracy import (
    compare,
    estimate,
    judge,
    judge_ranking,
    summarise,
)
from layerpick.calibration.judging.evaluation import (
    climbed_verdicts,
    evaluate,
    find_way,
    hold_out,
    shares,
    steps,
)
from layerpick.calibration.predictors import choice
from layerpick.calibration.predictors.base import Prediction
from layerpick.calibration.predictors.calibrated import CalibratedPredictor
from layerpick.calibration.predictors.choice import Lesson
from layerpick.calibration.predictors.design import make_design
from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.predictors.regressors import DepthRegressor, RidgeRegressor
from layerpick.training.errors import LayerpickError

LEVEL = LEVELS["weights"]
RIDGE = Lesson(RidgeRegressor(30.0, 12))


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch):
    monkeypatch.setattr(choice, "CANDIDATES", (DepthRegressor(3.0), RIDGE.regressor))


def test_a_verdict_by_hand(made_examples):
    (example,) = made_examples(1)
    contributions = np.array([0.1, np.nan, 0.9, 0.5])
    example = replace(
        example,
        contributions=contributions,
        errors=np.zeros(4),
        best=frozenset({2}),
    )
    scores = np.array([0.0, 9.0, 0.4, 0.6])  # the highest is not measured
    prediction = Prediction(scores, scores - 0.2, scores + 0.2, scores[None], 0.8, "")
    verdict = judge(example, scores, prediction)
    assert verdict["spearman"] == pytest.approx(0.5)
    assert verdict["kendall"] == pytest.approx(1 / 3)
    assert verdict["regret"] == pytest.approx(0.4)
    assert (verdict["pick_is_equal"], verdict["top3_recall"]) == (0, 1)
    assert verdict["coverage"] == pytest.approx(2 / 3)
    assert verdict["width"] == pytest.approx(0.4)
    assert "spearman_without_depth" not in verdict


def test_bootstrap_draws_models_not_sweeps(made_examples):
    """Against the error of a mean of independent models, each measured four times."""
    generator = np.random.default_rng(0)
    values = {}
    for number, example in enumerate(made_examples(40)):
        value = generator.normal()
        for _ in range(4):
            values[replace(example, weights_hash=f"m{number}")] = value
    found = estimate(values)
    of_models = list(values.values())[::4]
    assert found.mean == pytest.approx(np.mean(of_models))
    assert found.error == pytest.approx(np.std(of_models) / np.sqrt(40), rel=0.1)
    assert found.low < found.mean < found.high
    assert found.sweeps == 160
    assert estimate({}) is None


def test_differences_are_paired(made_examples):
    examples = made_examples(10)
    generator = np.random.default_rng(0)
    hard = generator.normal(size=10)
    first = {e: {"spearman": v + 0.1, "width": 1.0} for e, v in zip(examples, hard, strict=True)}
    second = {e: {"spearman": v} for e, v in zip(examples, hard, strict=True)}
    gap = compare(first, second)
    assert set(gap) == {"spearman"}
    assert gap["spearman"].mean == pytest.approx(0.1)
    assert gap["spearman"].error == pytest.approx(0, abs=1e-9)
    assert summarise(second)["spearman"].error > 0.1


def test_rankings_without_their_feature_are_not_judged(made_examples):
    examples = made_examples(12)
    del examples[0].features["weights"]["weights_signal"]
    found = judge_ranking(lambda example: example.by_name["weights_signal"], examples)
    assert set(found) == set(examples[1:])
    assert np.mean([verdict["spearman"] for verdict in found.values()]) > 0.7


def test_held_out_predictions_come_from_the_other_models(made_examples):
    examples = made_examples(6)
    found, notes = hold_out(examples, examples, LEVEL, "model")
    assert not notes and set(found) == set(examples)
    rest = make_design(examples[1:], LEVEL)
    expected = CalibratedPredictor(rest, RIDGE).predict(examples[0].layer_features(), 0)
    assert found[examples[0]].predictor.lesson == RIDGE
    assert found[examples[0]].prediction.contribution == pytest.approx(expected.contribution)
    assert found[examples[0]].prediction.low == pytest.approx(expected.low)


@pytest.mark.parametrize("by", ["model", "task"])
def test_what_was_measured_of_a_model_left_out_changes_nothing(made_examples, by):
    """Two sweeps of the same model: neither may teach the other, whatever is left out."""
    examples = made_examples(6)
    measured = examples[0].contributions
    twin = replace(examples[0], data_hash="other", contributions=np.zeros_like(measured))
    found = []
    for value in (-9.0, 9.0):
        twin.contributions[:] = value + measured
        held_out, _ = hold_out([*examples, twin], [*examples, twin], LEVEL, by)
        found.append(held_out[examples[0]].prediction.contribution)
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("by", ["family", "task"])
def test_groups_are_left_out_whole(made_examples, by, monkeypatch):
    examples = made_examples(9)
    learned: list[set[str]] = []
    fit = CalibratedPredictor.__init__

    def spy(self, design, lesson, population):
        learned.append({example.weights_hash for example in design.examples})
        fit(self, design, lesson, population)

    monkeypatch.setattr(CalibratedPredictor, "__init__", spy)
    found, notes = hold_out(examples, examples, LEVEL, by)
    assert not notes and set(found) == set(examples)
    key = (lambda e: e.family) if by == "family" else (lambda e: e.data_hash)
    groups = {
        key(e): {each.weights_hash for each in examples if key(each) == key(e)} for e in examples
    }
    everyone = {example.weights_hash for example in examples}
    assert sorted(map(sorted, learned)) == sorted(sorted(everyone - g) for g in groups.values())


def test_a_group_that_leaves_too_few_is_named(made_examples):
    examples = made_examples(4)
    found, notes = hold_out(examples, examples, LEVEL, "algorithm")
    assert found == {}
    assert len(notes) == 1 and "at least 3 models" in notes[0] and "algorithm" in notes[0]


def test_an_evaluation_holds_everything(made_examples):
    examples = made_examples(8)
    del examples[7].features["gradient"]
    levels = [LEVELS["weights"], LEVELS["backward"]]
    done: list[int] = []
    found = evaluate(
        examples,
        "model",
        levels,
        {
            "signal": lambda example: example.by_name["weights_signal"],
            "absent": lambda example: example.by_name["absent"],
        },
        done.append,
    )
    assert set(found.levels) == {"weights", "backward"}
    assert len(found.levels["weights"].held_out) == 8
    assert len(found.levels["backward"].held_out) == 7
    assert set(found.baselines) == {"signal"}
    assert found.noise_ceiling.mean == pytest.approx(0.9)
    means = found.levels["weights"].means
    assert set(means) == set(accuracy.METRICS)
    assert means["spearman"].mean > 0.5
    share = found.levels["weights"].share_of_ceiling
    assert share == pytest.approx(means["spearman"].mean / 0.9)
    gap = found.levels["weights"].against["signal"]["spearman"].mean
    assert gap == pytest.approx(means["spearman"].mean - found.baselines["signal"]["spearman"].mean)
    assert len(done) == 2 * (8 + 7)  # two candidates here
    assert steps(examples, "model", levels) % (8 + 7) == 0


def test_costs_are_shares_of_the_sweep(made_examples):
    (example,) = made_examples(1)
    assert shares(example, LEVELS["weights"]) == pytest.approx((0, 0.01))
    assert shares(example, LEVELS["backward"]) == pytest.approx((0.02, 0.05))  # 3 probes + 2 s


def test_ways_are_known_by_name():
    assert find_way("family") == "family"
    with pytest.raises(LayerpickError, match="horoscope"):
        find_way("horoscope")


def test_a_warm_up_of_five_steps_counts_its_part_of_one_of_twenty(made_examples):
    (example,) = made_examples(1)
    level = LEVELS["on_policy"]
    one = np.ones(example.layers)
    probes = {
        **example.features,
        "warm_up": {"warm_up_5_gain": one, "warm_up_10_gain": one},
    }
    assert level.used(probes["warm_up"]) == {"warm_up_5_gain": one}
    cost = next(iter(example.costs.values()))
    costs = {**dict.fromkeys(level.probes, cost), "warm_up": cost}
    with_costs = replace(example, costs=costs, features=probes, seconds=100.0)
    others = (len(level.probes) - 1) * cost.seconds + example.rollouts.seconds
    warm_up = (5 * 64 + 128) / (20 * 64 + 3 * 128)
    assert shares(with_costs, level)[1] == pytest.approx((others + warm_up * cost.seconds) / 100)
    short = replace(with_costs, features={**probes, "warm_up": {"warm_up_5_gain": one}})
    assert shares(short, level)[1] == pytest.approx((others + cost.seconds) / 100)


def test_what_comes_by_default_measures_the_layers_that_may_be_best(made_examples):
    """Judged from the features that the default would have, level after level."""
    examples = [with_dearer_features(example) for example in made_examples(6)]
    levels = [LEVELS["backward"], LEVELS["one_step"], LEVELS["off_policy"]]
    found = evaluate(examples, "model", levels, {})
    verdicts = climbed_verdicts(found.levels)
    assert set(verdicts) == set(examples)
    assert found.climbed["regret"].mean == pytest.approx(
        np.mean([verdict["regret"] for verdict in verdicts.values()])
    )
    assert {"expected_loss", "loss_held", "shortlist", "shortlist_held"} <= set(found.climbed)
    # Levels that rank no better are not measured: the answer is then the first level's.
    first = found.levels["backward"].held_out
    none_better = {
        "backward": found.levels["backward"],
        "off_policy": replace(
            found.levels["off_policy"],
            held_out={
                example: replace(held, criterion=-1.0)
                for example, held in found.levels["off_policy"].held_out.items()
            },
        ),
    }
    assert climbed_verdicts(none_better) == {e: held.verdict for e, held in first.items()}


def with_dearer_features(example):
    """The features of the first level stand in for those of the dearer ones, with less noise."""
    own = dict(example.features)
    generator = np.random.default_rng(0)
    for probe in ("hidden", "one_step", "off_policy"):
        noise = generator.normal(0, 0.05, example.layers)
        own[probe] = {f"{probe}_made_up": example.contributions + noise}
    return replace(example, features=own)
