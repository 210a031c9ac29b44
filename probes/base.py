"""What a probe is: one or more numbers per layer, and what they cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from layerpick.training.algorithms.base import Algorithm
from layerpick.training.loading import LoadedModel
from layerpick.training.rollouts import Rollouts

Needs = Literal["weights", "forward", "backward", "training"]


@dataclass(frozen=True)
class ProbeInput:
    """What every probe of one suggestion shares."""

    model: LoadedModel
    rollouts: Rollouts
    algorithm: Algorithm
    seed: int


@dataclass(frozen=True)
class FeatureInfo:
    """What one feature measures."""

    name: str
    about: str
    formula: str
    source: str


@dataclass(frozen=True)
class ProbeCost:
    """What a probe cost."""

    seconds: float
    tokens: int
    """Tokens passed forward through the model (a backward pass counts its forward only)."""
    peak_bytes: int
    """Most memory held while the probe ran: resident on the CPU, allocated on CUDA."""


@dataclass(frozen=True)
class ProbeResult:
    """Features by name, each of shape (layers,), float64."""

    features: Mapping[str, np.ndarray]
    cost: ProbeCost


class Probe(ABC):
    """A family of features measured together, because they share their passes."""

    name: ClassVar[str]
    needs: ClassVar[Needs]
    features: ClassVar[tuple[FeatureInfo, ...]]

    @abstractmethod
    def measure(
        self, shared: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> tuple[Mapping[str, np.ndarray], int]:
        """Features by name, each of shape (layers,), and the tokens passed forward.

        `on_done` is told how many of `steps` have just been done.
        """

    @abstractmethod
    def steps(self, shared: ProbeInput) -> int:
        """Number of steps that `measure` will report, for a progress bar."""
