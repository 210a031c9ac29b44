"""Measured sweeps as plain values: one score per layer, beside the base and the full run.

A score is in the units of its source (a fraction or percent); contributions have no unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
    contributions: Mapping[int, Score]
    """C(k) = (S_k − S_base) / (S_full − S_base) of these layers; empty where it means nothing."""
    source: str
    """Whose measurement this is."""

    def contribution(self, layer: int) -> float:
        """C(k)."""
        return self.contributions[layer].mean

    def depth(self, layer: int) -> float:
        """Relative depth in [0, 1]."""
        return layer / (self.num_layers - 1)
