"""Which population a model belongs to: pretrained, as people have them, or made from scratch."""

from __future__ import annotations

from typing import Literal, get_args

from layerpick.training.pretraining.names import ZOO_NAMES

Population = Literal["pretrained", "from scratch"]
POPULATIONS: tuple[Population, ...] = get_args(Population)
BUILT_IN = "reference-"
"""How records name the models that come with layerpick."""


def population_of(model: str) -> Population:
    """By the name in its records: the zoo's models and the built-in ones are from scratch."""
    made = model in ZOO_NAMES or model.startswith(BUILT_IN)
    return "from scratch" if made else "pretrained"
