"""The posterior of every arm's final score, from a prediction and the curves so far.

A Gaussian model, in deviations from the arms' mean and in units of the headroom 1 − S_base. With p
the predicted contributions, y the final scores and c what curves say after a share of the steps:

    y = β p + u,   β ~ N(m, v),   u ~ N(0, s²) for each arm
    c = g y + e,   e ~ N(0, r²) for each arm

How far predictions can be trusted differs between sweeps: β is one number for all arms of a race,
so curves that contradict the prediction lessen what it says of every arm. c is a combination of the
late and the mean reward of the curve, the one that foretells y best. All is learned from stored
sweeps; a seed's curves are held against the other seeds' scores.

Limits: one noise for all sweeps, although larger batches have less; arms that left are forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerpick.calibration.races.curves import SweepCurves
from layerpick.training.values import Record

LATE = 0.25
"""Share of the steps so far whose rewards are called late."""
FEWEST_LATE = 3
"""Steps that are late at least."""
LEAST_VARIANCE = 0.05
"""Least variance of β: a few sweeps that agree do not prove that all do."""
RIDGE = 1e-3
"""Penalty on the two weights of a curve, relative to their mean square."""


class Foresight(Record):
    """What is foretold after one share of the steps; letters as in the module's formula."""

    slope: float
    """m."""
    slope_variance: float
    """v."""
    arm_variance: float
    """s²."""
    curve_weights: tuple[float, float]
    """Of the late reward and of the mean reward, in c."""
    gain: float
    """g."""
    noise_variance: float
    """r²."""

    def prior(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (arms,) and covariance (arms, arms) of y before the first step."""
        p = predicted - predicted.mean()
        own = self.arm_variance * np.eye(len(p))
        return self.slope * p, self.slope_variance * np.outer(p, p) + own

    def posterior(
        self, predicted: np.ndarray, curves: np.ndarray, headroom: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (arms,) and covariance (arms, arms) of y, given curves (arms, steps so far)."""
        mean, prior = self.prior(predicted)
        seen = _signals(curves, headroom) @ np.array(self.curve_weights)
        centred = np.eye(len(mean)) - 1 / len(mean)
        shared = self.gain * prior @ centred
        total = self.gain**2 * centred @ prior @ centred
        total += self.noise_variance * np.eye(len(mean))
        weights = np.linalg.solve(total, shared.T).T
        surprise = seen - self.gain * centred @ mean
        return mean + weights @ surprise, prior - weights @ shared.T


def learn(sweeps: Sequence[SweepCurves], share: float) -> Foresight:
    """Fit to stored sweeps, each with the same say, after `share` of their steps."""
    slope, slope_variance, arm_variance = _prior(sweeps)
    signals, finals, weights = [], [], []
    for sweep in sweeps:
        steps = max(1, round(share * sweep.steps))
        seeds = len(sweep.scores)
        for seed in range(seeds):
            final = sweep.others(seed) / sweep.headroom
            finals.append(final - final.mean())
            signals.append(_signals(sweep.curves[seed, :, :steps], sweep.headroom))
            weights.append(np.full(len(final), 1 / (len(final) * seeds)))
    x, y, w = np.concatenate(signals), np.concatenate(finals), np.concatenate(weights)
    square = (x * w[:, None]).T @ x
    square += RIDGE * np.trace(square) * np.eye(2)
    own = np.linalg.solve(square, (x * w[:, None]).T @ y)
    c = x @ own
    gain = float((w * c * y).sum() / (w * y**2).sum())
    noise = float((w * (c - gain * y) ** 2).sum() / w.sum())
    return Foresight(
        slope=slope,
        slope_variance=slope_variance,
        arm_variance=arm_variance,
        curve_weights=(float(own[0]), float(own[1])),
        gain=gain,
        noise_variance=noise,
    )


def _prior(sweeps: Sequence[SweepCurves]) -> tuple[float, float, float]:
    """m, v and s²: the slopes' mean, their variance beyond what noise explains, and the rest's."""
    slopes, scatters, rests, arms = [], [], [], []
    for sweep in sweeps:
        final = sweep.scores.mean(axis=0) / sweep.headroom
        y, p = final - final.mean(), sweep.predicted - sweep.predicted.mean()
        scatter = max(float((p**2).mean()), 1e-6)
        slope = float((p * y).mean()) / scatter
        slopes.append(slope)
        scatters.append(scatter)
        rests.append(float((y - slope * p).var()))
        arms.append(len(p))
    scatter_of, rest_of = np.array(scatters), np.array(rests)
    weights = scatter_of / scatter_of.sum()
    mean = float(weights @ np.array(slopes))
    explained = rest_of / (np.array(arms) * scatter_of)
    variance = float(weights @ ((np.array(slopes) - mean) ** 2 - explained))
    return mean, max(variance, LEAST_VARIANCE), float(rest_of.mean())


def _signals(curves: np.ndarray, headroom: float) -> np.ndarray:
    """(arms, 2), float64: late and mean rewards of curves (arms, steps), centred, over headroom."""
    steps = curves.shape[1]
    late = min(max(FEWEST_LATE, round(LATE * steps)), steps)
    both = np.stack([curves[:, -late:].mean(axis=1), curves.mean(axis=1)], axis=1) / headroom
    return both - both.mean(axis=0)
