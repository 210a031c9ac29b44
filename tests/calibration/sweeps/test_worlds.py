"""The worlds that pretrained models were measured in, played by whoever reads them well."""

import re
from pathlib import Path

import pytest

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.training.environments.table import make_world

DATASETS = Path(SHIPPED_SWEEPS).parent / "datasets"
WORLDS, TILL = DATASETS / "worlds.py", DATASETS / "till.py"


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


def till(seen: str) -> str:
    """The sum after what goes in or out."""
    before, sign, change = seen.removesuffix(" =").split()
    return str(int(before) + int(f"{sign}{change}"))


@pytest.mark.parametrize(
    ("name", "answer"),
    [(f"{WORLDS}:Market", seller), (f"{WORLDS}:Corridor", door), (f"{TILL}:Till", till)],
)
def test_reading_well_earns_everything(name, answer):
    for seed in range(20):
        world = make_world(name)
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


def test_a_wrong_sum_ends_the_episode_and_a_right_one_is_carried_on():
    world = make_world(f"{TILL}:Till")
    first = world.reset(5)
    right = world.step(till(first))
    assert (right.reward, right.done) == (0.5, False)
    assert right.observation.startswith(till(first))
    assert world.step("0").done
    world.reset(5)
    wrong = world.step("0")
    assert (wrong.reward, wrong.done) == (0.0, True)
