"""What a probe is: one or more numbers per layer, and what they cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np

from layerpick.training.algorithms.base import Algorithm
from layerpick.training.episodes.play import SamplingSettings
from layerpick.training.episodes.rollouts import Rollouts
from layerpick.training.models.loading import LoadedModel
from layerpick.training.tasks.base import Task

Needs = Literal["weights", "forward", "backward", "training"]
CLASSES: tuple[Needs, ...] = get_args(Needs)
"""Cost classes, from cheap to dear."""


@dataclass(frozen=True)
class ProbeSizes:
    """How much is read by the probes that cannot afford all rollouts."""

    trajectories: int = 256
    """Read by the forward probes; groups that carry signal come first."""
    lens_positions: int = 64
    """Written tokens, over all rollouts, at which the logit lens is read."""
    bypass_pairs: int = 16
    """Prompts whose best and worst completions are read with each layer skipped."""
    token_class_groups: int = 4
    """Groups whose gradient is split by class of token; each costs two more backward passes."""
    curvature_trajectories: int = 4
    """Read once per layer by the Hessian–vector products."""
    attribution_trajectories: int = 4
    """Read `integration_steps` times per layer by the two integrated attributions."""
    integration_steps: int = 4
    training_trajectories: int = 1024
    """Learned from, and judged on, by the probes that train off-policy."""
    one_step_stride: float = 16.0
    """Learning rate of the single step over that of real training."""
    off_policy_steps: tuple[int, ...] = (1, 3, 5)
    """When the off-policy warm-up at one learning rate is judged."""
    off_policy_stride: float = 8.0
    """The off-policy warm-up's, likewise: a few long steps go as far as many."""
    equal_kl_steps: tuple[int, ...] = ()
    """When the one at rates that move every layer alike is judged; none: it is not run."""
    on_policy_steps: tuple[int, ...] = (5,)
    """After how many of its RL steps the on-policy warm-up is judged."""
    on_policy_stride: float = 4.0
    """Its learning rate over that of real training."""
    on_policy_episodes: int = 64
    """Sampled in each of those steps for each layer, in groups as large as the rollouts'."""
    judged_prompts: int = 32
    """That the warm-up is judged on; no more than twice those of the rollouts."""
    judged_samples: int = 4
    """Episodes for each of them."""


@dataclass(frozen=True)
class ProbeInput:
    """What every probe of one suggestion shares."""

    model: LoadedModel
    rollouts: Rollouts
    algorithm: Algorithm
    seed: int
    learning_rate: float = 1e-4
    """Of the probes that train: the rate that real training would use."""
    sizes: ProbeSizes = field(default_factory=ProbeSizes)
    task: Task | None = None
    """What the rollouts are of; needed by the probes that sample."""
    sampling: SamplingSettings | None = None
    """How those probes sample."""
    other: Rollouts | None = None
    """Rollouts of the same weights on another task, to compare gradients with."""

    candidates: tuple[int, ...] | None = None
    """Layers that probes train alone; None: all. Others get not-a-number."""

    @property
    def layer_count(self) -> int:
        """Number of decoder layers."""
        return len(self.model.layers)

    @property
    def trained_layers(self) -> tuple[int, ...]:
        """The layers that probes train alone, in order."""
        return self.candidates or tuple(range(self.layer_count))

    @property
    def share_learned_from(self) -> float:
        """Part of the rollouts that the probes which train off-policy read."""
        return min(1.0, self.sizes.training_trajectories / len(self.rollouts.trajectories))


@dataclass(frozen=True)
class FeatureInfo:
    """What one feature measures."""

    name: str
    about: str
    formula: str
    source: str


@dataclass(frozen=True)
class Measurement:
    """What a probe found."""

    features: Mapping[str, np.ndarray]
    """By name, each of shape (layers,), float64."""
    tokens: int
    """Tokens passed forward through the model (a backward pass counts its forward only)."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Features that this model or these rollouts do not allow, with the reason."""
    sampled_tokens: int = 0
    """Tokens written by policies that the probe trained, and by the model beside them."""


@dataclass(frozen=True)
class ProbeCost:
    """What a probe cost."""

    seconds: float
    tokens: int
    """Tokens passed forward through the model (a backward pass counts its forward only)."""
    peak_bytes: int
    """Most memory held while the probe ran: resident on the CPU, allocated on CUDA."""
    sampled_tokens: int = 0
    """Tokens written while the probe ran."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found and what it cost."""

    features: Mapping[str, np.ndarray]
    """By name, each of shape (layers,), float64; empty when the probe failed."""
    cost: ProbeCost
    failure: str | None = None
    """Why the probe, or some of its features, are missing."""


WITH_BACKWARD = 3.0
"""Time of a forward and backward pass over that of a forward pass alone."""


@dataclass(frozen=True)
class Pace:
    """What the rollouts took on this machine, to foresee what a probe will take."""

    forward: float
    """Seconds of a forward pass over all rollouts."""
    sampling: float
    """Seconds in which they were sampled."""
    candidates: tuple[int, ...]
    """Layers that will be trained alone."""

    def passes(self, layers: int) -> float:
        """Forward passes that reading by each candidate amounts to, each beginning at its layer."""
        return sum(1 - layer / layers for layer in self.candidates)


class Probe(ABC):
    """A family of features measured together, because they share their passes."""

    name: ClassVar[str]
    needs: ClassVar[Needs]
    features: ClassVar[tuple[FeatureInfo, ...]]
    headings: ClassVar[Mapping[str, str]] = {}
    """Those of them that tables and pictures can show, most telling first, and above what."""
    of_candidates: ClassVar[bool] = False
    """Dear by layer: with --budget it measures `ProbeInput.candidates` only."""

    @abstractmethod
    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """Measure all features of the family.

        `on_done` is told how many of `ticks` have just been done. Raises LayerpickError when the
        family cannot be measured on this model or these rollouts.
        """

    def seconds(self, probe_input: ProbeInput, pace: Pace) -> float:  # noqa: ARG002
        """What it is expected to take, roughly; 0 for what costs next to nothing."""
        return 0.0

    @abstractmethod
    def ticks(self, probe_input: ProbeInput) -> int:
        """Number of ticks that `measure` will report, for a progress bar."""
