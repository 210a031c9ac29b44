"""The learning rate of a suggestion, and who takes it."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from layerpick.calibration.predictors.rates import StoredRates
from layerpick.selector.suggestion import probing, rate
from layerpick.selector.training_run.advice import at_advised_rate


@pytest.fixture
def probed(monkeypatch):
    monkeypatch.setattr(rate, "load_rates", lambda: StoredRates(target=0.04, sweeps=3, models=2))
    return SimpleNamespace(features={"long_step_kl": np.array([0.01, 0.16])}, one_step_rate=1.6e-4)


def prepared(name):
    return SimpleNamespace(
        model=SimpleNamespace(
            identity=SimpleNamespace(id=name, name=name, revision=None, source=name)
        )
    )


def test_it_is_that_of_the_picks_own_step(probed, monkeypatch):
    monkeypatch.setattr(probing, "model_label", lambda identity: identity.name)
    # By hand: 1.6e-4 × √(0.04 / 0.01), and × √(0.04 / 0.16).
    assert rate.rate_of(0, probed, prepared("someone/model")) == pytest.approx(3.2e-4)
    assert rate.rate_of(1, probed, prepared("someone/model")) == pytest.approx(8e-5)
    assert rate.rate_of(0, probed, prepared("reference-math")) is None  # made from scratch
    without = SimpleNamespace(features={}, one_step_rate=1.6e-4)
    assert rate.rate_of(0, without, prepared("someone/model")) is None


@dataclass(frozen=True)
class Trained:
    learning_rates: tuple[float, ...]


def test_what_was_asked_for_comes_first():
    bench = Trained((1e-5,))
    advice = SimpleNamespace(learning_rate=3e-4)
    assert at_advised_rate(bench, advice, None).learning_rates == (3e-4,)
    assert at_advised_rate(bench, advice, 2e-5).learning_rates == (1e-5,)
    assert at_advised_rate(bench, SimpleNamespace(learning_rate=None), None) is bench
    assert at_advised_rate(bench, None, None) is bench
