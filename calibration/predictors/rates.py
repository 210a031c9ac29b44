"""The learning rate to train one layer at, from how far a step moves the policy.

A single layer stands a higher rate than the whole model; how much higher differs between models and
layers. Adam moves every weight by about its rate, so the divergence from the base policy after one
step grows with its square. The probe `one_step` measures KL₁ at a rate r₁ for every layer; the rate
at which a step moves the policy by KL* is

    r = r₁ √(KL* / KL₁).

KL* is all that is learned, from sweeps in which every policy was trained at several rates. A rate
that is somewhat too low costs little and one too high destroys, and nothing is known beyond a
sweep's grid: so it is the lowest KL* that reaches nearly as much as any.

Limits: it suits runs about as long as those sweeps (20 steps); longer ones want a lower rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from layerpick.calibration.predictors.stored import own_or_shipped
from layerpick.calibration.sweeps.features import FeatureTable, read_features
from layerpick.calibration.sweeps.measured import rates_read
from layerpick.calibration.sweeps.store import read_folder, sweep_folders
from layerpick.training.errors import LayerpickError
from layerpick.training.files import write_text
from layerpick.training.reading import read_record
from layerpick.training.sweeps.records import RunRecord
from layerpick.training.values import Count, Positive, Record

RATES_FILE = "rates.json"
PROBE, KL_FEATURE = "one_step", "long_step_kl"
TARGETS = np.geomspace(1e-4, 10.0, 101)
"""Divergences that are compared, in nats per trajectory."""
NEARLY = 0.02
"""Share of the gain that may be left for the sake of a lower rate."""
STRIDE = 16.0
"""The probe's rate over the usual one, `ProbeSizes.one_step_stride`."""
MAY_BE_PICKED = 0.8
"""Share of the best layer's gain from which on a layer is judged."""
FEWEST_MODELS = 2
"""Models without which none can be left out, so that nothing is known of a rule."""


@dataclass(frozen=True, eq=False)
class RateCase:
    """What the layers of one sweep that may be picked gained at each of its rates."""

    model: str
    """Its weights hash."""
    rates: np.ndarray
    """(rates,), float64, ascending."""
    gains: np.ndarray
    """(layers, rates), float64: S − S_base, mean over seeds."""
    moved: np.ndarray
    """(layers,), float64: KL₁, in nats per trajectory."""
    probed_rate: float
    """r₁."""

    def reached(self, asked: np.ndarray) -> float:
        """Gain at the rates nearest to those asked for (layers,), as a share of the best; mean."""
        distance = np.abs(np.log(self.rates) - np.log(asked)[:, None])
        gained = self.gains[np.arange(len(self.gains)), distance.argmin(axis=1)]
        return float((gained / self.gains.max(axis=1)).mean())

    def reached_by(self, target: float) -> float:
        """The same at the rates advised for KL*."""
        return self.reached(advised_rate(self.moved, self.probed_rate, target))


@dataclass(frozen=True)
class RatesJudged:
    """Gain of layers that may be picked, as a share of that at the best rate; mean over sweeps."""

    advised: float
    """At the rates advised by what the other models taught."""
    usual: float
    """At the rate that the model's size suggests."""
    sweeps: int


def judge_rates(cases: Sequence[RateCase]) -> RatesJudged | None:
    """Every model left out in turn; None with fewer than two."""
    if len({case.model for case in cases}) < FEWEST_MODELS:
        return None
    advised = [
        case.reached_by(learn_target([other for other in cases if other.model != case.model]))
        for case in cases
    ]
    usual = [case.reached(np.full(len(case.gains), case.probed_rate / STRIDE)) for case in cases]
    return RatesJudged(float(np.mean(advised)), float(np.mean(usual)), len(cases))


class StoredRates(Record):
    """What was learned, as its file has it."""

    schema_version: Literal[1] = 1
    target: Positive
    """KL*, in nats per trajectory."""
    sweeps: Count
    models: Count


def advised_rate(moved: np.ndarray, probed_rate: float, target: float) -> np.ndarray:
    """r₁ √(KL* / KL₁) from KL₁ (layers,), in nats per trajectory; (layers,), float64."""
    return probed_rate * np.sqrt(target / np.maximum(moved, 1e-12))


def learn_target(cases: Sequence[RateCase]) -> float:
    """KL*, every model counting alike."""
    by_model: dict[str, list[np.ndarray]] = defaultdict(list)
    for case in cases:
        by_model[case.model].append(np.array([case.reached_by(target) for target in TARGETS]))
    reached = np.mean([np.mean(found, axis=0) for found in by_model.values()], axis=0)
    return float(TARGETS[np.flatnonzero(reached >= reached.max() - NEARLY)[0]])


def learn_rates(cases: Sequence[RateCase]) -> StoredRates:
    """What is stored. Raises LayerpickError with too few models."""
    models = {case.model for case in cases}
    if len(models) < FEWEST_MODELS:
        raise LayerpickError(
            f"Advice on learning rates needs sweeps of {FEWEST_MODELS} models at several rates "
            f"(`layerpick sweep --lr-grid`) with the probe {PROBE}, and there are {len(models)}."
        )
    target = float(f"{learn_target(cases):.3g}")
    return StoredRates(target=target, sweeps=len(cases), models=len(models))


def read_cases(roots: Sequence[Path]) -> list[RateCase]:
    """The sweeps below these folders that were trained at several rates and have the probe."""
    found = []
    for folder in dict.fromkeys(folder for root in roots for folder in sweep_folders(root)):
        table = read_features(folder)
        if table and table.one_step_rate and KL_FEATURE in table.features.get(PROBE, {}):
            case = _case(read_folder(folder), table, table.one_step_rate)
            found += [case] if case is not None else []
    return found


def _case(records: Sequence[RunRecord], table: FeatureTable, rate: float) -> RateCase | None:
    if records[0].settings.rates != "own":
        return None
    base = np.mean([r.score for r in records if r.run.kind == "base" and r.score is not None])
    scores: dict[int, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.run.layer is not None and record.score is not None:
            scores[record.run.layer][record.run.learning_rate or 0.0].append(record.score)
    rates = rates_read(records)
    whole = {layer: own for layer, own in sorted(scores.items()) if own.keys() >= set(rates)}
    gains = np.array([[np.mean(own[each]) - base for each in rates] for own in whole.values()])
    if len(rates) < 2 or not len(gains) or gains.max() <= 0:
        return None
    picked = gains.max(axis=1) >= MAY_BE_PICKED * gains.max()
    moved = np.array(table.features[PROBE][KL_FEATURE])[list(whole)]
    return RateCase(table.weights_hash, np.array(rates), gains[picked], moved[picked], rate)


def write_rates(rates: StoredRates, folder: Path) -> Path:
    """Write the file beside the predictors, whole or not at all."""
    path = folder / RATES_FILE
    write_text(path, rates.model_dump_json() + "\n")
    return path


def load_rates() -> StoredRates | None:
    """The user's own, or else the shipped one; None where there is neither."""
    path = own_or_shipped(RATES_FILE)
    if not path.is_file():
        return None
    remedy = "delete it, and run `layerpick calibrate` to make it again"
    return read_record(path, StoredRates, "advice on rates", remedy)
