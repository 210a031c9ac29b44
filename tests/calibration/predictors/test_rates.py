"""The learning rate that is advised for a layer."""

import json
import shutil

import numpy as np
import pytest

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.predictors.rates import (
    KL_FEATURE,
    STRIDE,
    RateCase,
    advised_rate,
    judge_rates,
    learn_rates,
    learn_target,
    load_rates,
    read_cases,
    write_rates,
)
from layerpick.probes.base import ProbeSizes
from layerpick.training.errors import LayerpickError

GRID = np.array([1e-5, 3e-5, 1e-4, 3e-4])


def made_case(model: str, moved: tuple[float, ...], target: float = 0.04) -> RateCase:
    """Layers that gain most where a step moves them by the target, and lose all far above it."""
    probed = 1.6e-4
    kl = np.array(moved)[:, None] * (GRID / probed) ** 2
    gains = np.where(kl > 5 * target, 0.0, np.minimum(kl / target, 1) ** 0.25)
    return RateCase(model, GRID, gains, np.array(moved), probed)


def test_a_step_at_the_advised_rate_moves_as_far_as_it_should():
    moved = np.array([0.02, 0.5, 8.0])
    rate = advised_rate(moved, 1.6e-4, 0.03)
    # The divergence grows with the square of the rate.
    assert moved * (rate / 1.6e-4) ** 2 == pytest.approx([0.03] * 3)


def test_the_target_is_found_and_carries_over_to_other_models():
    cases = [made_case("one", (0.02, 0.05, 0.1)), made_case("other", (1.0, 4.0, 9.0))]
    for case in cases:
        others = [each for each in cases if each is not case]
        assert case.reached_by(learn_target(others)) > 0.9
        assert case.reached(np.full(3, 1e-5)) < case.reached_by(learn_target(cases)) <= 1


def test_of_targets_that_do_alike_the_lowest_counts():
    """Where every rate of the grid does as well, nothing is known beyond its ends."""
    flat = made_case("one", (0.02, 0.05))
    flat.gains[:] = 1.0
    assert learn_target([flat]) == pytest.approx(1e-4)


def test_one_model_is_not_enough():
    cases = [made_case("one", (0.02,)), made_case("one", (0.05,))]
    assert judge_rates(cases) is None
    with pytest.raises(LayerpickError, match="2 models"):
        learn_rates(cases)


def test_the_shipped_advice_is_that_of_the_shipped_sweeps(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPICK_CACHE", str(tmp_path))
    cases = read_cases([SHIPPED_SWEEPS])
    learned = learn_rates(cases)
    assert load_rates() == learned and learned.models >= 2
    judged = judge_rates(cases)
    assert judged is not None and judged.advised > judged.usual
    own = learned.model_copy(update={"target": 0.5})
    write_rates(own, tmp_path / "predictors")
    assert load_rates() == own


def test_a_probe_that_failed_makes_no_case(tmp_path):
    (source,) = SHIPPED_SWEEPS.glob("gemma-3*/digits")
    folder = tmp_path / "gemma" / "digits"
    shutil.copytree(source, folder)
    assert len(read_cases([tmp_path])) == 1
    table = json.loads((folder / "features.json").read_text())
    del table["features"]["one_step"][KL_FEATURE]
    (folder / "features.json").write_text(json.dumps(table))
    assert read_cases([tmp_path]) == []


def test_the_probes_stride_is_known_here():
    assert ProbeSizes().one_step_stride == STRIDE
