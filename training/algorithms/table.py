"""The algorithms by name."""

from __future__ import annotations

from layerpick.training.algorithms.base import Algorithm
from layerpick.training.algorithms.dr_grpo import DrGrpo
from layerpick.training.algorithms.gigpo import GiGpo
from layerpick.training.algorithms.grpo import Grpo
from layerpick.training.errors import LayerpickError

ALGORITHMS: dict[str, type[Algorithm]] = {
    algorithm.name: algorithm for algorithm in (Grpo, DrGrpo, GiGpo)
}


def make_algorithm(name: str) -> Algorithm:
    """The algorithm of that name. Raises LayerpickError for an unknown one."""
    if name not in ALGORITHMS:
        raise LayerpickError(f"The algorithm '{name}' is unknown: use {', '.join(ALGORITHMS)}.")
    return ALGORITHMS[name]()
