"""The worlds that pretrained models were measured in, played by whoever reads them well."""

import re
from pathlib import Path

import pytest

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.training.environments.table import make_world

WORLDS = Path(SHIPPED_SWEEPS).parent / "datasets" / "worlds.py"


def seller(seen: str) -> str:
    """Who sells what is asked for."""
    wanted = re.search(r"Who sells (\w+)\?", seen)
    assert wanted
    (found,) = re.findall(rf"(\w+) sells {wanted[1]}\.", seen)
    return str(found)


def door(seen: str) -> str:
    """The way to the wanted door."""
    here, wanted = map(int, re.findall(r"\d+", seen))
    return "up" if here < wanted else "down"


@pytest.mark.parametrize(("name", "answer"), [("Market", seller), ("Corridor", door)])
def test_reading_well_earns_everything(name, answer):
    for seed in range(20):
        world = make_world(f"{WORLDS}:{name}")
        seen, earned, done, turns = world.reset(seed), 0.0, False, 0
        assert world.reset(seed) == seen
        while not done:
            step = world.step(answer(seen))
            seen, done = step.observation, step.done
            earned, turns = earned + step.reward, turns + 1
        assert earned == 1.0
        assert turns <= world.turns


def test_a_wrong_seller_ends_the_episode_with_what_was_earned():
    world = make_world(f"{WORLDS}:Market")
    first = world.step(seller(world.reset(3)).upper())
    assert (first.reward, first.done) == (0.5, False)
    second = world.step("Nobody")
    assert (second.reward, second.done) == (0.0, True)
