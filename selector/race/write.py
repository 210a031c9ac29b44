"""What a race shows of itself, as files beside its result."""

from __future__ import annotations

from layerpick.selector.pages.html import REPORT, write_page
from layerpick.selector.race.page import race_page
from layerpick.selector.race.picture import draw_race
from layerpick.selector.race.racing import RaceOutcome

PICTURE = "race.png"


def write_race(outcome: RaceOutcome) -> None:
    """Write the picture and the page."""
    draw_race(outcome.result, outcome.place / PICTURE)
    write_page(race_page(outcome), outcome.place / REPORT)
