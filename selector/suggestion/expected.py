"""What a level is worth, and about how long what is missing of it will take.

Limits: times are passes over the rollouts times what one of them takes, timed once. A level that
does little but start up takes longer than is said.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from layerpick.calibration.predictors.levels import Level, worth_measuring
from layerpick.calibration.predictors.stored import StoredPredictor
from layerpick.calibration.sweeps.population import Population, population_of
from layerpick.probes.base import WITH_BACKWARD, Pace, ProbeInput
from layerpick.probes.table import find_probe
from layerpick.probes.trials.prefixes import texts
from layerpick.training.batches.packed import packed_log_probs


@dataclass(frozen=True)
class Timing:
    """What passes over the rollouts take on this machine."""

    sampling: float
    """Seconds in which they were sampled."""
    forward: float
    """Seconds of a forward pass over all of them."""

    @property
    def step(self) -> float:
        """Seconds of a step of training on as many."""
        return self.sampling + WITH_BACKWARD * self.forward

    def of(
        self,
        level: Level,
        probe_input: ProbeInput,
        measured: Collection[str],
        candidates: Sequence[int],
    ) -> float:
        """Seconds that the probes of a level which were not measured yet will take.

        `candidates` go through the probes that are dear by layer.
        """
        return sum(
            self.of_probe(
                name,
                probe_input,
                candidates if find_probe(name).of_candidates else range(probe_input.layer_count),
            )
            for name in missing(level, measured)
        )

    def of_probe(self, name: str, probe_input: ProbeInput, candidates: Sequence[int]) -> float:
        """Seconds that a probe will take."""
        pace = Pace(self.forward, self.sampling, tuple(candidates))
        return find_probe(name)().seconds(probe_input, pace)


def time_passes(probe_input: ProbeInput, sampling: float) -> Timing:
    """Time a forward pass on the first batch of the rollouts."""
    rollouts = probe_input.rollouts
    text = next(texts(probe_input, range(len(rollouts.groups)), probe_input.model.dtype))
    start = time.perf_counter()
    with torch.no_grad():
        temperature = rollouts.origin.temperature or 1.0
        packed_log_probs(probe_input.model.model, text.batch, temperature).sum().item()
    seconds = time.perf_counter() - start
    return Timing(sampling, seconds * len(rollouts.trajectories) / len(text.trajectories))


def missing(level: Level, measured: Collection[str]) -> list[str]:
    """The level's probes that were not measured yet."""
    return [name for name in level.probes if name not in measured]


def levels_that_tell_more(
    predictors: Mapping[str, StoredPredictor], population: Population
) -> list[Level]:
    """Dearer levels worth measuring: they rank better than cheaper ones.

    Levels that no model of this kind has taught are left out, where others have been.
    """
    taught = {
        name: predictor
        for name, predictor in predictors.items()
        if any(population_of(each.model) == population for each in predictor.examples)
    }
    lessons = {name: each.lessons[population] for name, each in (taught or predictors).items()}
    return worth_measuring({name: lesson.criterion for name, lesson in lessons.items()})
