"""The algorithms by name."""

from __future__ import annotations

from layerpick.training.algorithms.base import Algorithm
from layerpick.training.algorithms.dr_grpo import DrGrpo
from layerpick.training.algorithms.gigpo import GiGpo
from layerpick.training.algorithms.grpo import Grpo
from layerpick.training.own_code import find_class

ALGORITHMS: dict[str, type[Algorithm] | str] = {
    algorithm.name: algorithm for algorithm in (Grpo, DrGrpo, GiGpo)
}


def make_algorithm(name: str) -> Algorithm:
    """The algorithm of that name or `file.py:Class`. Raises LayerpickError for an unknown one."""
    return find_class(name, ALGORITHMS, Algorithm, "algorithm")()  # type: ignore[type-abstract]
