"""What is chosen to learn, for which population, and from whom."""

from dataclasses import replace

import numpy as np
import pytest

from layerpick.calibration.judging.metrics import regret, spearman
from layerpick.calibration.predictors import calibrated
from layerpick.calibration.predictors.calibrated import CalibratedPredictor
from layerpick.calibration.predictors.candidates import CANDIDATES
from layerpick.calibration.predictors.choice import LeftOut, Lesson, choose
from layerpick.calibration.predictors.design import make_design
from layerpick.calibration.predictors.estimator import fitted, inputs
from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.predictors.regressors import (
    Blend,
    DepthRegressor,
    GradientAndGains,
    RandomForest,
    RidgeRegressor,
)

RIDGE = Lesson(RidgeRegressor(30.0, 12))
DEPTH = Lesson(DepthRegressor(3.0))


def test_left_out_predictions_equal_a_fit_without_the_model(made_examples):
    examples = made_examples(5)
    level = LEVELS["weights"]
    left_out = LeftOut(make_design(examples, level))
    models = frozenset({"hash-1", "hash-3"})
    predicted = left_out.predictions(RIDGE, models)
    out = np.isin(left_out.design.models, list(models))
    assert (np.isfinite(predicted) == out).all()
    alone = make_design([each for each in examples if each.weights_hash not in models], level)
    refit = fitted(alone, RIDGE.regressor)
    for sweep in (1, 3):
        expected = refit.predict(inputs(left_out.design)[left_out.design.sweeps == sweep])
        assert predicted[left_out.design.sweeps == sweep] == pytest.approx(expected)


def test_a_blend_is_the_mean_of_its_members_fitted_at_once(made_examples):
    design = make_design(made_examples(5), LEVELS["weights"])
    models = frozenset({"hash-0"})
    rows = design.sweeps == 0
    expected = fitted(design.without(models), Blend()).predict(inputs(design)[rows])
    kept = LeftOut(design).predictions(Lesson(Blend()), models)[rows]
    assert kept == pytest.approx(expected)


def test_the_choice_is_the_best_mean_over_models_left_out(made_examples):
    design = make_design(made_examples(6), LEVELS["weights"])
    candidates = (DEPTH.regressor, RIDGE.regressor)
    choice = choose(LeftOut(design), frozenset({"hash-5"}), candidates)
    assert choice.lesson == RIDGE
    scores = []
    for sweep in range(5):
        rest = design.without(frozenset({"hash-5", f"hash-{sweep}"}))
        asked = inputs(design)[design.sweeps == sweep]
        predicted = fitted(rest, RIDGE.regressor).predict(asked)
        measured = design.examples[sweep].contributions
        scores.append(spearman(measured, predicted) - regret(measured, predicted))
    assert choice.criteria[str(RIDGE)] == pytest.approx(np.mean(scores))


def test_what_is_foretold_was_neither_fitted_to_nor_chosen_by(made_examples):
    """By hand: for each model what is best on all others, fitted without it."""
    examples = made_examples(6)
    # On one model the depth says everything, which tips the choice if that model has a say.
    for number, example in enumerate(examples):
        depth = example.layer_features().depth
        example.contributions[:] = 10 * depth if number == 2 else example.contributions + depth / 5
    design = make_design(examples, LEVELS["weights"])
    left_out, outer = LeftOut(design), frozenset({"hash-5"})
    candidates = (DEPTH, RIDGE)
    choice = choose(left_out, outer, [each.regressor for each in candidates])
    names = [f"hash-{number}" for number in range(5)]

    def score(lesson, name):
        rows = design.models == name
        predicted = left_out.predictions(lesson, outer | {name})[rows]
        measured = design.targets[rows]
        return spearman(measured, predicted) - regret(measured, predicted)

    chosen = []
    for name in names:
        others = [each for each in names if each != name]
        best = max(candidates, key=lambda each: np.mean([score(each, other) for other in others]))
        rows = design.models == name
        expected = left_out.predictions(best, outer | {name})[rows]
        assert choice.foretold[rows] == pytest.approx(expected)
        chosen.append(best)
    assert np.isnan(choice.foretold[design.models == "hash-5"]).all()
    assert chosen[2] != choice.lesson


def test_without_signal_the_choice_falls_back_on_depth(made_examples):
    """Contributions that depth alone decides, in models whose features say nothing."""
    examples = made_examples(10)
    for example in examples:
        depth = example.layer_features().depth
        example.contributions[:] = 0.3 + 0.5 * depth
    design = make_design(examples, LEVELS["weights"])
    assert choose(LeftOut(design), frozenset(), CANDIDATES[:5]).lesson.regressor == DEPTH.regressor


def test_a_feature_that_names_the_model_does_not_help(made_examples):
    """Noise alone, beside a column that tells every model from every other: ρ stays about 0."""
    generator = np.random.default_rng(0)
    examples = made_examples(16)
    for number, example in enumerate(examples):
        example.contributions[:] = generator.normal(size=example.layers)
        noise = generator.normal(size=example.layers)
        example.features["weights"].clear()
        example.features["weights"]["name"] = 10.0 * number + 0 * noise
        example.features["weights"]["noise"] = noise
    design = make_design(examples, LEVELS["weights"])
    left_out = LeftOut(design)
    for lesson in (RIDGE, Lesson(RandomForest(20, 4, 48))):
        found = [
            spearman(
                example.contributions,
                left_out.predictions(lesson, frozenset({example.weights_hash}))[
                    design.sweeps == number
                ],
            )
            for number, example in enumerate(examples)
        ]
        assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def sweeps_of_two_kinds(made_examples):
    """Made from scratch, the feature tells the worst layers; pretrained, the best."""
    examples = []
    for number, example in enumerate(made_examples(14)):
        scratch = number < 10
        name = f"reference-{number}" if scratch else f"model-{number}"
        values = example.contributions if not scratch else -example.contributions
        features = {"weights": {"signal": values.copy()}}
        examples.append(replace(example, model=name, features=features))
    return examples


def test_each_population_is_learned_from_by_itself(made_examples):
    design = make_design(sweeps_of_two_kinds(made_examples), LEVELS["weights"])
    for population, sign in (("pretrained", 1), ("from scratch", -1)):
        own, others = design.of(population)
        assert {each.population for each in own.examples} == {population}
        assert len(own.examples) + len(others.examples) == 14
        asked = replace(
            own.examples[0].layer_features(), probes={"signal": np.arange(own.examples[0].layers)}
        )
        found = CalibratedPredictor(design, Lesson(RidgeRegressor(30.0, 4), 0.1), population)
        assert (
            sign * spearman(np.arange(own.examples[0].layers), found.predict(asked, 0).contribution)
            > 0.9
        )
        chosen = choose(LeftOut(design, population), frozenset(), [RIDGE.regressor]).lesson
        assert chosen.others == 0.0  # the others say the opposite


def test_with_few_models_whole_data_sets_are_left_out_too(made_examples):
    examples = [
        replace(example, weights_hash=f"hash-{number % 2}", data_hash=f"data-{number // 2}")
        for number, example in enumerate(made_examples(8))
    ]
    design = make_design(examples, LEVELS["weights"])
    assert set(design.groups) == {"hash-0", "hash-1", *(f"data-{n}" for n in range(4))}
    assert set(design.alike) == {f"data-{n}" for n in range(4)}
    left_out = LeftOut(design)
    rows = np.isfinite(left_out.predictions(RIDGE, frozenset({"data-1"})))
    assert set(design.sweeps[rows]) == {2, 3}
    lone = make_design(made_examples(4), LEVELS["weights"])
    assert set(lone.groups) == {f"hash-{n}" for n in range(4)}  # each asked one thing of its own
    shared = [replace(example, data_hash="data") for example in made_examples(4)]
    together = make_design(shared, LEVELS["weights"])
    assert set(together.alike) == {f"hash-{n}" for n in range(4)}  # else nothing would be left
    assert np.isfinite(choose(LeftOut(together), frozenset()).foretold).all()


def test_few_models_choose_nothing(made_examples, monkeypatch):
    examples = made_examples(4)
    for example in examples:
        example.features["gradient"]["relative_gradient_norm"] = example.contributions.copy()
    few = make_design(examples, LEVELS["backward"])
    assert choose(LeftOut(few), frozenset()).lesson == Lesson(GradientAndGains())
    asked = made_examples(5)[4].layer_features()
    norms = np.random.default_rng(0).normal(size=len(asked.depth))
    odd = replace(asked, probes={"relative_gradient_norm": norms}, base_reward=5.0)
    found = CalibratedPredictor(few, Lesson(GradientAndGains())).predict(odd, 0)
    assert "outside calibration" in found.basis
    assert (np.argsort(found.contribution) == np.argsort(norms)).all()
    monkeypatch.setattr(calibrated, "WIDEST", 1.0)  # what is known before is not widened
    unwidened = CalibratedPredictor(few, Lesson(GradientAndGains())).predict(odd, 0)
    assert (found.high == unwidened.high).all() and (found.draws == unwidened.draws).all()
