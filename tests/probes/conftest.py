"""Rollouts of random tokens: what the probes read, without sampling."""

from collections.abc import Callable

import numpy as np
import pytest

from layerpick.probes.base import ProbeInput, ProbeSizes
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.episodes.rollouts import RolloutOrigin, Rollouts
from layerpick.training.episodes.trajectory import Trajectory, Turn


def some_rollouts(groups=5, size=4, seed=0, silent=1, longest=12) -> Rollouts:
    """Random tokens in two turns; the last `silent` groups earn the same throughout."""
    generator = np.random.default_rng(seed)
    trajectories = []
    for group in range(groups):
        for _ in range(size):
            length = int(generator.integers(7, longest))
            tokens = tuple(generator.integers(2, 250, size=length).tolist())
            earned = float(generator.integers(2)) if group < groups - silent else 0.0
            turns = (Turn(3, 5, f"{group}", 0.0), Turn(6, length, "later", earned))
            trajectories.append(Trajectory(group, tokens, turns, earned))
    origin = RolloutOrigin("", "math", "", groups, size, 8, 2, 0.8, seed)
    return Rollouts(origin, tuple(trajectories))


@pytest.fixture(scope="session")
def make_probe_input() -> Callable[..., ProbeInput]:
    """`make_probe_input(model, algorithm, sizes, learning_rate, other, **rollouts)`."""

    def make(
        model, algorithm="grpo", sizes=None, learning_rate=1e-4, other=None, **kwargs
    ) -> ProbeInput:
        """`other`: how to make another task's rollouts."""
        rollouts = some_rollouts(**kwargs)
        chosen, sizes = make_algorithm(algorithm), sizes or ProbeSizes()
        others = some_rollouts(**other) if other else None
        return ProbeInput(model, rollouts, chosen, 0, learning_rate, sizes, other=others)

    return make
