"""Races replayed on stored curves, models left out, beside simpler ways to spend the same runs.

The judge of a seed's race is the mean score of the other seeds; the rule is learned from the other
models alone, and so is the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from layerpick.calibration.judging.accuracy import mean_over_models
from layerpick.calibration.races.curves import SweepCurves
from layerpick.calibration.races.rule import Raced, RaceRule, learn_rule, run_race
from layerpick.calibration.sweeps.population import POPULATIONS, Population

BUDGETS = (1.5, 2.5, 4.0)
"""Single-layer runs, of those that rules are stored for."""
HALVING = ((2, "successive halving on reward alone, first cut after 2 steps"), (5, "… after 5"))


@dataclass(frozen=True)
class Replayed:
    """One way to choose a layer, in the mean over sweeps, with standard errors over models."""

    name: str
    cost: tuple[float, float]
    """In single-layer runs; the probes' cost is not in it."""
    regret: tuple[float, float]
    """Contribution lost, on sweeps that have contributions."""
    share_lost: tuple[float, float]
    """Share of the best layer's gain lost."""
    sweeps: int


Way = Callable[[SweepCurves, int], Raced]


def replay(
    sweeps: Sequence[SweepCurves], budgets: Sequence[float] = BUDGETS
) -> dict[Population, list[Replayed]]:
    """Judge races at several budgets and the simpler ways, on each population's sweeps.

    Rules are learned from the sweeps of all.
    """
    ways: dict[str, Way] = {"best predicted, alone": _best_of(1)}
    ways |= {f"best of the {n} best predicted, all to the end": _best_of(n) for n in (2, 3, 4)}
    ways |= {name: _halving(first) for first, name in HALVING}
    ways |= {f"race, {budget:g} runs": _races(sweeps, budget) for budget in budgets}
    found: dict[Population, list[Replayed]] = {}
    for population in POPULATIONS:
        own = [sweep for sweep in sweeps if sweep.population == population]
        if own:
            found[population] = [_judged(name, way, own) for name, way in ways.items()]
    return found


def _races(sweeps: Sequence[SweepCurves], budget: float) -> Way:
    rules: dict[str, RaceRule] = {}

    def way(sweep: SweepCurves, seed: int) -> Raced:
        model = sweep.weights_hash
        if model not in rules:
            others = [other for other in sweeps if other.weights_hash != model]
            rules[model] = learn_rule(others, budget)
        return run_race(rules[model], sweep, seed)

    return way


def _best_of(count: int) -> Way:
    def way(sweep: SweepCurves, seed: int) -> Raced:
        arms = np.argsort(-sweep.predicted, kind="stable")[:count]
        return Raced(int(arms[sweep.scores[seed, arms].argmax()]), float(len(arms)))

    return way


def _halving(first: int) -> Way:
    """All layers set out; after `first` steps, and whenever they double, the better half stays."""

    def way(sweep: SweepCurves, seed: int) -> Raced:
        alive = np.arange(len(sweep.layers))
        cost, before, steps = 0.0, 0, first
        while len(alive) > 1 and steps < sweep.steps:
            cost += len(alive) * (steps - before) / sweep.steps
            rewards = sweep.curves[seed, alive, :steps].mean(axis=1)
            alive = alive[np.argsort(-rewards, kind="stable")[: -(-len(alive) // 2)]]
            before, steps = steps, 2 * steps
        cost += len(alive) * (sweep.steps - before) / sweep.steps
        rewards = sweep.curves[seed, alive, before:].mean(axis=1)
        return Raced(int(alive[rewards.argmax()]), cost)

    return way


def _judged(name: str, way: Way, sweeps: Sequence[SweepCurves]) -> Replayed:
    rows = []
    for sweep in sweeps:
        costs, losses, gains = [], [], []
        for seed in range(len(sweep.scores)):
            raced, truth = way(sweep, seed), sweep.others(seed)
            costs.append(raced.cost)
            losses.append(truth.max() - truth[raced.winner])
            gains.append(truth.max() - sweep.base)
        loss = float(np.mean(losses))
        regret = loss / sweep.gain if sweep.gain else np.nan
        rows.append((np.mean(costs), regret, loss / max(float(np.mean(gains)), 1e-3)))
    table = np.array(rows)
    models = [sweep.weights_hash for sweep in sweeps]
    means = [_mean(column, models) for column in table.T]
    return Replayed(name, means[0], means[1], means[2], len(sweeps))


def _mean(values: np.ndarray, models: Sequence[str]) -> tuple[float, float]:
    """Mean of the finite values (sweeps,), and its standard error with whole models drawn anew."""
    known = np.isfinite(values)
    if not known.any():
        return float("nan"), float("nan")
    found = mean_over_models(values[known], np.array(models)[known].tolist())
    return found.mean, found.error
