"""Measured sweeps as plain values: one score per layer, beside the base and the full run.

A score is in the units of its source (a fraction or percent); contributions have no unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True)
class Score:
    """Mean verifiable reward on held-out prompts."""

    mean: float
    error: float | None = None
    """Standard error; None where the source gives none."""


@dataclass(frozen=True)
class Sweep:
    """What RL gained: full-parameter, and with single layers, for one model × task × algorithm."""

    model: str
    num_layers: int
    task: str
    algorithm: str
    dataset: str
    base: Score
    full: Score
    layers: Mapping[int, Score]
    """The layers measured, not always all."""
    source: str
    """Whose measurement this is."""

    def contribution(self, layer: int) -> float:
        """C(k) = (S_k − S_base) / (S_full − S_base)."""
        return (self.layers[layer].mean - self.base.mean) / (self.full.mean - self.base.mean)

    def contribution_error(self, layer: int) -> float | None:
        """Standard error of C(k) by the delta method; None where a score's error is unknown.

        With D = S_full − S_base, the derivatives of C are 1/D by S_k, (C − 1)/D by S_base and
        −C/D by S_full.
        """
        errors = (self.layers[layer].error, self.base.error, self.full.error)
        if any(error is None for error in errors):
            return None
        layer_error, base_error, full_error = (float(error or 0.0) for error in errors)
        gain = self.full.mean - self.base.mean
        c = self.contribution(layer)
        return sqrt(layer_error**2 + ((c - 1) * base_error) ** 2 + (c * full_error) ** 2) / abs(
            gain
        )

    def depth(self, layer: int) -> float:
        """Relative depth in [0, 1]."""
        return layer / (self.num_layers - 1)
