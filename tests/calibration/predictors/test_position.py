import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.calibration.paths import PUBLISHED
from layerpick.calibration.predictors.base import LayerFeatures
from layerpick.calibration.predictors.position import (
    PositionPredictor,
    PositionSettings,
    load_position_predictor,
)
from layerpick.calibration.sweeps.published import find_sweep, published_sweeps


def features(layers: int) -> LayerFeatures:
    return LayerFeatures(np.linspace(0, 1, layers), {})


@pytest.mark.parametrize("table", sorted(PUBLISHED.glob("*.csv")), ids=lambda path: path.stem)
def test_contributions_equal_the_printed_ones(table: Path):
    """Ours come from scores rounded to a tenth of a point, so they are close but not equal."""
    lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
    checked = 0
    for row in csv.DictReader(lines):
        if not row["layer"]:
            continue
        model = row.get("model", "Qwen/Qwen3-1.7B-Base")
        (sweep,) = [s for s in published_sweeps() if s.model == model]
        ours = sweep.contribution(int(row["layer"]))
        assert ours == pytest.approx(float(row["contribution"]), abs=0.021)
        checked += 1
    assert checked >= 26


def test_sweeps_are_found_by_model_task_and_algorithm():
    found = find_sweep("Qwen/Qwen3-4B-Base", "math", "grpo")
    assert found is not None and found.contribution(16) == pytest.approx(1.06, abs=0.01)
    assert find_sweep("Qwen/Qwen3-4B-Base", "code", "grpo") is None
    assert find_sweep("Qwen/Qwen3-4B", "math", "grpo") is None


def test_residuals_come_from_sweeps_left_out():
    """By hand, with numpy's own weighted least squares in place of scikit-learn's ridge."""
    sweeps = published_sweeps()
    predictor = PositionPredictor(sweeps, PositionSettings(degree=2, ridge=1e-9, coverage=0.8))
    expected = []
    for left_out in sweeps:
        depth, target, weight = [], [], []
        for sweep in sweeps:
            if sweep is not left_out:
                for layer in sweep.layers:
                    depth.append(sweep.depth(layer))
                    target.append(sweep.contribution(layer))
                    weight.append(1 / len(sweep.layers))
        line = np.polyfit(depth, target, 2, w=np.sqrt(weight))
        for layer in left_out.layers:
            predicted = np.polyval(line, left_out.depth(layer))
            expected.append(left_out.contribution(layer) - predicted)
    assert predictor.residuals == pytest.approx(expected, abs=1e-4)


def test_the_interval_holds_its_share_of_left_out_layers():
    predictor = load_position_predictor()
    prediction = predictor.predict(features(28), seed=0)
    low, high = prediction.low - prediction.contribution, prediction.high - prediction.contribution
    inside = (predictor.residuals >= low[0]) & (predictor.residuals <= high[0])
    assert inside.mean() == pytest.approx(0.8, abs=0.05)


@given(st.integers(1, 80), st.integers(0, 5))
def test_predictions_are_sound_for_any_number_of_layers(layers, seed):
    prediction = load_position_predictor().predict(features(layers), seed)
    assert prediction.contribution.shape == (layers,)
    assert (prediction.low <= prediction.contribution).all()
    assert (prediction.contribution <= prediction.high).all()
    assert prediction.chance_best.sum() == pytest.approx(1)
    assert "position only" in prediction.basis
