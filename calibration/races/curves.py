"""Learning curves of a measured sweep, for foretelling late ones from early ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerpick.calibration.sweeps.measured import read_sweep
from layerpick.calibration.sweeps.population import Population
from layerpick.training.sweeps.records import RunRecord

LEAST_HEADROOM = 0.05
"""Below it a model leaves nothing to gain that curves could show."""


@dataclass(frozen=True, eq=False)
class SweepCurves:
    """Single-layer runs of one sweep: L layers, S seeds, T steps each."""

    name: str
    weights_hash: str
    base: float
    """The untrained model's held-out score."""
    gain: float | None
    """S_full − S_base; None where contributions mean nothing."""
    layers: np.ndarray
    """(L,), int64: the layers' numbers."""
    curves: np.ndarray
    """(S, L, T), float64: mean training reward of each step."""
    scores: np.ndarray
    """(S, L), float64: held-out scores of the trained policies."""
    predicted: np.ndarray
    """(L,), float64: contributions predicted without this model."""
    population: Population = "pretrained"

    @property
    def headroom(self) -> float:
        """The most reward there is to gain, the unit in which sweeps are alike."""
        return headroom_above(self.base)

    @property
    def steps(self) -> int:
        """T."""
        return self.curves.shape[2]

    def others(self, seed: int) -> np.ndarray:
        """(L,), float64: mean scores over all seeds but one, which judge that one."""
        return np.delete(self.scores, seed, axis=0).mean(axis=0)


def headroom_above(base: float) -> float:
    """The most reward to gain from a base score, never less than `LEAST_HEADROOM`."""
    return max(1.0 - base, LEAST_HEADROOM)


def read_curves(
    records: Sequence[RunRecord], predicted: np.ndarray, population: Population = "pretrained"
) -> SweepCurves | None:
    """The curves of a sweep whose layers' contributions were predicted as `predicted` (layers,).

    Where every policy had several rates, each layer's best one counts. None with fewer than two
    seeds that trained all layers, of which one could judge the other. Raises LayerpickError for a
    sweep without a base score or full run.
    """
    reading = read_sweep(records)
    by_policy: dict[tuple[int, float], dict[int, RunRecord]] = defaultdict(dict)
    for record in records:
        run = record.run
        if run.layer is not None and record.status == "done" and run.learning_rate is not None:
            by_policy[run.layer, run.learning_rate][run.seed] = record
    best: dict[int, dict[int, RunRecord]] = {}
    for (layer, _), runs in sorted(by_policy.items()):
        if layer not in best or _mean(runs) > _mean(best[layer]):
            best[layer] = runs
    layers = [layer for layer in sorted(best) if np.isfinite(predicted[layer])]
    seeds = sorted(set.intersection(*(set(best[layer]) for layer in layers))) if layers else []
    if len(seeds) < 2:
        return None
    table = [[best[layer][seed] for layer in layers] for seed in seeds]
    return SweepCurves(
        name=f"{reading.settings.model} · {reading.settings.source} · {reading.settings.algorithm}",
        weights_hash=reading.settings.weights_hash,
        base=reading.base.score.mean,
        gain=None if reading.refusal else reading.gain.mean,
        layers=np.array(layers),
        curves=np.array([[record.curve for record in row] for row in table]),
        scores=np.array([[record.score for record in row] for row in table], dtype=float),
        predicted=predicted[layers],
        population=population,
    )


def _mean(runs: dict[int, RunRecord]) -> float:
    return float(np.mean([record.score or 0.0 for record in runs.values()]))
