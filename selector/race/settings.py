"""What a person can choose about a race."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from typer import Option

from layerpick.selector.settings import rates_of


@dataclass(frozen=True)
class RaceChoice:
    """How long the candidates run side by side."""

    panel: ClassVar[str] = "Race"

    race_budget: Annotated[float, Option(min=1.0)] = 2.5
    """What a race may cost in the mean, in single-layer runs. How many arms set out, and when they
    leave, is learned from stored sweeps for a few budgets; the largest not above this counts."""
    arms: Annotated[int | None, Option(min=2)] = None
    """How many arms (layers, each at one rate) set out; learned for the budget if left out."""
    race_rates: Annotated[
        tuple[float, ...] | None, Option(parser=rates_of("--race-rates"), metavar="<str>")
    ] = None
    """Learning rates, separated by commas, as 3e-5,1e-4: a layer is an arm at each of them, as far
    as --arms goes. One rate if left out."""
