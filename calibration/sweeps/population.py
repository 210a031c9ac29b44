"""Which population a model belongs to: pretrained, as people have them, or made from scratch."""

from __future__ import annotations

from typing import Literal, get_args

Population = Literal["pretrained", "from scratch"]
POPULATIONS: tuple[Population, ...] = get_args(Population)
BUILT_IN = "reference-"
"""How records name the models that come with layerpick."""


def population_of(model: str) -> Population:
    """By the name in its records: the zoo's models and the built-in ones are from scratch."""
    from layerpick.training.pretraining.zoo import ZOO  # brings transformers with it

    return "from scratch" if model in ZOO or model.startswith(BUILT_IN) else "pretrained"
