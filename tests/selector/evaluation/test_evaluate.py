"""`layerpick evaluate` and `layerpick calibrate`, from folders to what is printed."""

import json
import sys

import pytest

from layerpick.calibration.judging.baselines import BASELINES
from layerpick.calibration.predictors import choice, stored
from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.predictors.rates import RatesJudged
from layerpick.calibration.predictors.regressors import DepthRegressor, RidgeRegressor
from layerpick.selector.app.app import run
from layerpick.selector.evaluation import run as evaluating
from layerpick.selector.evaluation.run import POSITION, rankings
from layerpick.selector.recalibration import run as calibrating


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch):
    candidates = (DepthRegressor(3.0), RidgeRegressor(30.0, 12))
    monkeypatch.setattr(choice, "CANDIDATES", candidates)


@pytest.fixture
def shipped(made_examples, write_sweep, monkeypatch, tmp_path):
    """Six sweeps in the place of those shipped, the last without what the gradient probe found."""
    root = tmp_path / "shipped"
    for number, example in enumerate(made_examples(6)):
        if number == 5:
            example.features["gradient"].clear()
        write_sweep(example, root)
    for module in (evaluating, calibrating):
        monkeypatch.setattr(module, "SHIPPED_SWEEPS", root)
    monkeypatch.setenv("LAYERPICK_CACHE", str(tmp_path / "cache"))
    return root


@pytest.fixture
def layerpick(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object):
        monkeypatch.setattr(sys, "argv", ["layerpick", *map(str, arguments)])
        code = run()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_evaluate_prints_tables_and_draws_pictures(layerpick, shipped, tmp_path):
    code, out, err = layerpick("evaluate", "--level", "weights", "--out", tmp_path / "pictures")
    assert code == 0, err
    for words in ("6 sweeps of 6 models", "Noise ceiling", "middle first", "model-3 · code · grpo"):
        assert words in out
    for name in ("predicted.png", "regret.png", "share-lost.png", "coverage.png"):
        picture = (tmp_path / "pictures" / "pretrained" / name).read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 5_000


def test_evaluate_as_json(layerpick, shipped):
    code, out, err = layerpick("evaluate", "--sweeps", shipped, "--json")
    assert code == 0, err
    found = json.loads(out)["populations"]["pretrained"]
    assert list(found["levels"]) == list(LEVELS)
    assert len(found["levels"]["weights"]["sweeps"]) == 6
    assert len(found["levels"]["backward"]["sweeps"]) == 5
    means = found["levels"]["weights"]["means"]
    assert {"spearman", "regret", "coverage", "width", "top3_recall"} <= set(means)
    assert means["spearman"]["low"] <= means["spearman"]["mean"] <= means["spearman"]["high"]
    by_hand = [each["spearman"] for each in found["levels"]["weights"]["sweeps"]]
    assert means["spearman"]["mean"] == pytest.approx(sum(by_hand) / 6)
    assert {"middle first", "later first", "random", POSITION} <= set(found["baselines"])
    assert "gradient norm" not in found["baselines"]  # these made-up models lack its feature
    assert "middle first" in found["levels"]["weights"]["minus_baseline"]
    layers = found["levels"]["weights"]["sweeps"][0]["layers"]
    assert sum(layer["chance_best"] for layer in layers) == pytest.approx(1)


def test_what_is_said_of_picks_and_rates_is_judged_too(layerpick, shipped, monkeypatch):
    code, out, err = layerpick("evaluate", "--json")
    assert code == 0, err
    assert json.loads(out)["rates"] is None  # one rate each
    found = json.loads(out)["populations"]["pretrained"]
    said = {"expected_loss", "loss_held", "shortlist", "shortlist_held"}
    assert said <= set(found["levels"]["weights"]["means"]) and said <= set(found["default"])
    # Six models made up alike: what picks are expected to lose is what they lose.
    weights = found["levels"]["weights"]["means"]
    assert weights["expected_loss"]["mean"] == pytest.approx(weights["regret"]["mean"], abs=0.1)
    monkeypatch.setattr(evaluating, "judge_rates", lambda _: RatesJudged(0.93, 0.58, 5))
    code, out, err = layerpick("evaluate", "--level", "weights")
    assert "5 sweeps at several rates" in out and "reach 0.93" in out and "0.58 at the usual" in out
    assert "expected loss" in out and "bound held" in out


def test_every_baseline_is_a_ranking(made_examples):
    (example,) = made_examples(1)
    needed = {baseline.feature for baseline in BASELINES.values() if baseline.feature}
    example.features["gradient"].update(dict.fromkeys(needed, example.contributions))
    for name, ranking in rankings().items():
        assert ranking(example).shape == (example.layers,), name
    assert set(rankings()) == {*BASELINES, POSITION}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--leave-out", "horoscope"], "horoscope"),
        (["--level", "divine"], "divine"),
        (["--sweeps", "nowhere"], "nowhere"),
        (["--leave-out", "algorithm"], "at least 3 models"),
    ],
)
def test_mistakes_of_evaluate(layerpick, shipped, arguments, said):
    code, out, err = layerpick("evaluate", *arguments)
    assert (code, out) == (2, "") and said in err and "Traceback" not in err


def test_sweeps_without_features_are_named(layerpick, shipped):
    next(shipped.glob("model-2/*/features.json")).unlink()
    code, _, err = layerpick("evaluate", "--level", "weights")
    assert code == 0 and "Left out" in err and "model-2" in err


def test_calibrate_adds_own_sweeps(layerpick, shipped, made_examples, write_sweep, tmp_path):
    for example in made_examples(2, seed=1):
        write_sweep(
            type(example)(**{**vars(example), "model": f"mine-{example.model}",
                             "weights_hash": f"mine-{example.weights_hash}"}),
            tmp_path / "own",
        )  # fmt: skip
    code, out, err = layerpick("calibrate", "--sweeps", tmp_path / "own", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["own_sweeps"] == 2
    written = stored.load_predictors(tmp_path / "cache" / "predictors")
    assert set(written) == set(LEVELS)
    first = found["predictors"][0]
    assert (first["level"], first["sweeps"], first["models"]) == ("weights", 8, 8)
    for judged, sweeps in (("everywhere", 8), ("own", 2)):
        change = first[judged]
        assert change["before"]["spearman"]["sweeps"] == sweeps
        assert change["difference"]["spearman"]["mean"] == pytest.approx(
            change["after"]["spearman"]["mean"] - change["before"]["spearman"]["mean"]
        )
    assert stored.available_predictors()["weights"].examples[-1].model.startswith("mine-")


def test_calibrate_on_the_shipped_sweeps_alone(layerpick, shipped, tmp_path):
    code, out, err = layerpick("calibrate", "--out", tmp_path / "out")
    assert code == 0, err
    assert "Written" in out and "before" not in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{level}.json" for level in LEVELS
    )


def test_a_calibration_that_fails_keeps_the_old_predictor(
    layerpick, shipped, tmp_path, monkeypatch
):
    assert layerpick("calibrate")[0] == 0
    folder = tmp_path / "cache" / "predictors"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, _, err = layerpick("calibrate", "--sweeps", shipped)
    assert code == 2 and "not shipped" in err

    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", broken)
    assert layerpick("calibrate")[0] == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "beside", [("--out", "folder"), ("--leave-out", "task"), ("--regressor", "mine.py:Own")]
)
def test_replays_of_races_refuse_what_they_would_ignore(layerpick, beside):
    code, _, err = layerpick("evaluate", "--race", *beside)
    assert code == 2 and err.startswith("Error: --race leaves models out and writes no files")
