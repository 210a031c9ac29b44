"""Which arms of a race go on: the rule, learned for a budget, stored as plain numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from layerpick.calibration.races.curves import SweepCurves
from layerpick.calibration.races.foresight import Foresight, learn
from layerpick.training.values import Record

RUNGS = (0.1, 0.2, 0.4, 0.7)
"""Shares of the steps after which arms may leave."""
ARMS = (2, 3, 4, 6, 8)
"""Numbers of arms to choose from."""
DRAWS = 1000
JITTER = 1e-9
"""Added to variances, which rounding could make negative."""
LEAST_CHANCE = 0.02
"""An arm with a smaller chance of being best leaves, whatever the budget."""
STRICTNESS = np.arange(1, 11) / 10


class RaceRule(Record):
    """How a race is judged at its rungs."""

    foresights: tuple[Foresight, ...]
    """One for each rung, and one for the end."""
    strictness: float
    """An arm leaves below this share of an equal chance: strictness / arms."""
    arms: int
    """How many layers set out."""

    def start(self, predicted: np.ndarray) -> np.ndarray:
        """The arms that set out, by falling prediction (layers,): their indices."""
        return np.argsort(-predicted, kind="stable")[: self.arms]

    def chances(
        self, rung: int, predicted: np.ndarray, curves: np.ndarray, headroom: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means and chances of being best, (arms,) each, at a rung or the end.

        predicted (arms,), curves (arms, steps so far). The same question has the same answer.
        """
        mean, covariance = self.foresights[rung].posterior(predicted, curves, headroom)
        spread = np.linalg.cholesky(covariance + JITTER * np.eye(len(mean)))
        draws = mean + _normals(len(mean)) @ spread.T
        return mean, np.bincount(draws.argmax(axis=1), minlength=len(mean)) / DRAWS

    def keep(self, mean: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """(arms,), bool: those that go on; the one foretold best always does."""
        least = max(self.strictness / len(chances), LEAST_CHANCE)
        kept = chances >= least
        kept[mean.argmax()] = True
        return kept


@dataclass(frozen=True)
class Raced:
    """How one race ended."""

    winner: int
    """Index into the layers that could have set out."""
    cost: float
    """In single-layer runs."""


def learn_rule(sweeps: Sequence[SweepCurves], budget: float) -> RaceRule:
    """Learn the foresights, and the arms and strictness whose races lose least within the budget.

    `budget` is in single-layer runs, in the mean over these sweeps. The loss is that of scores, in
    units of the headroom. The fewest arms and the strictest rule serve where none is cheap enough.
    """
    foresights = tuple(learn(sweeps, share) for share in (*RUNGS, 1.0))
    found = []
    for arms in ARMS:
        rules = [
            RaceRule(foresights=foresights, strictness=float(strictness), arms=arms)
            for strictness in STRICTNESS
        ]
        cheap = bisect_left(
            rules, -budget, hi=len(rules) - 1, key=lambda rule: -mean_cost_and_loss(rule, sweeps)[0]
        )
        cost, loss = mean_cost_and_loss(rules[cheap], sweeps)
        found.append((cost > budget, loss, rules[cheap]))
    return min(found, key=lambda each: each[:2])[2]


def mean_cost_and_loss(rule: RaceRule, sweeps: Sequence[SweepCurves]) -> tuple[float, float]:
    """Of races replayed on these sweeps: runs spent, and score lost over the headroom."""
    costs, losses = [], []
    for sweep in sweeps:
        raced = [run_race(rule, sweep, seed) for seed in range(len(sweep.scores))]
        truths = [sweep.others(seed) for seed in range(len(sweep.scores))]
        costs.append(np.mean([race.cost for race in raced]))
        lost = [truth.max() - truth[r.winner] for r, truth in zip(raced, truths, strict=True)]
        losses.append(np.mean(lost) / sweep.headroom)
    return float(np.mean(costs)), float(np.mean(losses))


def run_race(rule: RaceRule, sweep: SweepCurves, seed: int) -> Raced:
    """Replay a race on the curves of one seed; its scores are not looked at."""
    alive = rule.start(sweep.predicted)
    cost, before = 0.0, 0
    for rung, share in enumerate((*RUNGS, 1.0)):
        steps = max(1, round(share * sweep.steps))
        cost += len(alive) * (steps - before) / sweep.steps
        before = steps
        if len(alive) == 1:
            continue
        curves = sweep.curves[seed, alive, :steps]
        mean, chances = rule.chances(rung, sweep.predicted[alive], curves, sweep.headroom)
        alive = alive[rule.keep(mean, chances)] if share < 1 else alive[[mean.argmax()]]
    return Raced(int(alive[0]), cost)


@cache
def _normals(arms: int) -> np.ndarray:
    """(draws, arms), float64: standard normal numbers, the same in every race."""
    return np.random.default_rng(0).standard_normal((DRAWS, arms))
