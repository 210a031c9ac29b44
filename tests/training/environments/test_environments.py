"""Text worlds against gymnasium itself, a search of their own maps, and worlds that break."""

import signal
import time
from collections import deque
from pathlib import Path

import gymnasium
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpick.training.environments.base import TextWorld, WorldStep
from layerpick.training.environments.channels import Process
from layerpick.training.environments.hosting import WorldFailure, WorldHost
from layerpick.training.environments.table import make_world, parse_world
from layerpick.training.errors import LayerpickError

MOVES = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
TOYS = {  # our name -> gymnasium's arguments, and the order of its actions as in its documentation
    "FrozenLake-v1?is_slippery=false": (
        {"id": "FrozenLake-v1", "is_slippery": False},
        ["left", "down", "right", "up"],
    ),
    "FrozenLake-v1?map_name=8x8": (
        {"id": "FrozenLake-v1", "map_name": "8x8"},
        ["left", "down", "right", "up"],
    ),
    "CliffWalking-v1": ({"id": "CliffWalking-v1"}, ["up", "right", "down", "left"]),
    "Taxi-v4?is_rainy=true": (
        {"id": "Taxi-v4", "is_rainy": True},
        ["down", "up", "right", "left", "pickup", "dropoff"],
    ),
}

OWN_WORLDS = '''
import os, time
from layerpick.training.environments.base import TextWorld, WorldStep

class Counter(TextWorld):
    """Counts up to `goal`; some words make it misbehave."""
    rules = "Say more."
    turns = 7

    def __init__(self, goal=3):
        self.goal = goal

    def reset(self, seed):
        self.seed, self.count = seed, 0
        return f"{seed}:0"

    def step(self, action):
        if action == "raise":
            raise ValueError("boom")
        if action == "hang":
            time.sleep(3600)
        if action == "crash":
            os._exit(7)
        if action == "number":
            return 1
        if action == "nan":
            return WorldStep("x", float("nan"), False)
        self.count += 1
        return WorldStep(f"{self.seed}:{self.count}", 1.0, self.count == self.goal)

class Fickle(Counter):
    def reset(self, seed):
        return str(time.time())

class Stuck(Counter):
    def reset(self, seed):
        time.sleep(3600)

class Unrelated:
    pass
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    file = tmp_path / "own_worlds.py"
    file.write_text(OWN_WORLDS)
    return str(file)


class Words(TextWorld):
    actions = ("left", "right", "pick up")

    def reset(self, seed: int) -> str:
        return ""

    def step(self, action: str) -> WorldStep:
        return WorldStep("", 0.0, done=False)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("left", "left"),
        (" Right\n", "right"),
        ("I will go LEFT, I think.", "left"),
        ("left left", "left"),
        ("Pick up the cup", "pick up"),
        ("left or right", None),
        ("cleft", None),
        ("upright", None),
        ("", None),
    ],
)
def test_the_action_a_text_means(text: str, action: str | None) -> None:
    assert Words().read(text) == action


def test_free_text_is_its_last_line() -> None:
    class Free(Words):
        actions = ()

    assert Free().read("Let me think.\n  go north \n\n") == "go north"
    assert Free().read(" \n ") is None


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(TOYS)), st.integers(0, 2**31), st.lists(st.integers(0, 3), max_size=40)
)
def test_toy_worlds_are_gymnasiums(spec: str, seed: int, moves: list[int]) -> None:
    arguments, words = TOYS[spec]
    truth = gymnasium.make(**arguments).unwrapped
    join = "&" if "?" in spec else "?"
    worlds = [make_world(spec + join + f"reward={kind}") for kind in ("own", "success")]
    state, _ = truth.reset(seed=seed)
    texts = {state: worlds[0].reset(seed)}
    assert worlds[1].reset(seed) == texts[state]
    for move in moves:
        state, reward, done, *_ = truth.step(move)
        own, success = (world.step(words[move]) for world in worlds)
        assert own.valid and own.observation == success.observation
        assert own.observation == texts.setdefault(state, own.observation)
        assert (own.reward, own.done, success.done) == (reward, done, done)
        reached = done and (reward == 1 if "FrozenLake" in spec else True)
        assert success.reward == float(reached)
        if done:
            break
    assert len(set(texts.values())) == len(texts)  # no two states look alike


def test_every_taxi_state_has_its_own_text() -> None:
    world = make_world("Taxi-v4")
    world.reset(0)
    texts = set()
    for state in range(500):
        world._state = state
        texts.add(world._render())
    assert len(texts) == 500


def test_a_taxi_is_drawn_with_its_passenger_and_destination() -> None:
    world = make_world("Taxi-v4")
    world.reset(0)
    world._state = world._env.encode(3, 1, 2, 1)  # fourth row, second place, at Y, to G
    assert world._render() == (
        "|R: | : :G|\n| : | : : |\n| : : : : |\n| |A: | : |\n|Y| : |B: |\npassenger Y destination G"
    )


def shortest_path(grid: str) -> list[str]:
    """Breadth-first over the letters of a lake, without asking the world anything."""
    rows = grid.split("\n")
    tiles = {(r, c): tile for r, row in enumerate(rows) for c, tile in enumerate(row)}
    start = next(place for place, tile in tiles.items() if tile == "A")
    queue: deque[tuple[tuple[int, int], list[str]]] = deque([(start, [])])
    seen = {start}
    while queue:
        (row, column), path = queue.popleft()
        if tiles[row, column] == "G":
            return path
        for word, (down, right) in MOVES.items():
            place = row + down, column + right
            if tiles.get(place, "H") != "H" and place not in seen:
                seen.add(place)
                queue.append((place, [*path, word]))
    raise AssertionError("no path")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["", "&map_name=8x8", "&size=2", "&size=3", "&size=5&p=0.65", "&size=8"]),
    st.integers(0, 2**31),
)
def test_the_shortest_path_over_the_ice_earns_one(options: str, seed: int) -> None:
    world = make_world(f"FrozenLake-v1?is_slippery=false{options}")
    path = shortest_path(world.reset(seed))
    steps = [world.step(word) for word in path]
    assert [step.reward for step in steps] == [0.0] * (len(path) - 1) + [1.0]
    assert [step.done for step in steps] == [False] * (len(path) - 1) + [True]


def test_the_seed_decides_random_maps_and_chances() -> None:
    def play(seed: int) -> list[WorldStep | str]:
        world = make_world("FrozenLake-v1?size=6&success_rate=0.5")
        return [world.reset(seed), *(world.step(word) for word in ["right", "down"] * 5)]

    assert play(4) == play(4)
    assert len({str(play(seed)) for seed in range(10)}) == 10


def test_worlds_that_share_a_map_do_not_share_a_state() -> None:
    first, second = (make_world("FrozenLake-v1?is_slippery=false") for _ in range(2))
    start = first.reset(0)
    assert second.reset(0) == start
    assert first.step("right").observation != start
    assert second.step("nonsense").observation == start


@pytest.mark.parametrize("spec", sorted(TOYS))
@given(text=st.text(max_size=20))
@settings(max_examples=20, deadline=None)
def test_an_invalid_action_changes_nothing(spec: str, text: str) -> None:
    world, twin = make_world(spec), make_world(spec)
    start = world.reset(6)
    twin.reset(6)
    if world.read(text) is None:
        assert world.step(text) == WorldStep(start, 0.0, done=False, valid=False)
    else:
        twin.step(text)
        world.reset(6)
        world.step(text)
    move = world.actions[1]
    assert world.step(move) == twin.step(move)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("FrozenLake-v2", r"no environment 'FrozenLake-v2'.*FrozenLake-v1, CliffWalking-v1"),
        ("", "no environment ''"),
        ("FrozenLake-v1?slippery=no", "map_name, size, p, is_slippery.*'slippery'"),
        ("FrozenLake-v1?size=big", "size=big.*integer"),
        ("FrozenLake-v1?size=1", "size=1.*greater than or equal to 2"),
        ("FrozenLake-v1?map_name=5x5", "map_name=5x5"),
        ("FrozenLake-v1?map_name=4x4&size=4", "not both"),
        ("FrozenLake-v1?timeout=3", "'timeout'"),
        ("CliffWalking-v1?is_slippery", "'is_slippery'.*name=value"),
        ("Taxi-v4?reward=mine", "reward=mine"),
        ("missing.py:World", "missing.py does not exist"),
        ("OWN:Absent", "no class 'Absent'"),
        ("OWN:Unrelated", "no class 'Unrelated' that derives from TextWorld"),
        ("OWN:Counter?speed=2", "are goal:.*'speed'"),
        ("OWN:Counter?timeout=0", "positive number of seconds"),
    ],
)
def test_a_wrong_world_is_one_clear_sentence(spec: str, message: str, own: str) -> None:
    with pytest.raises(LayerpickError, match=message) as error:
        make_world(spec.replace("OWN", own))
    assert "\n" not in str(error.value)


def test_a_file_that_does_not_run_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("1 / 0")
    with pytest.raises(LayerpickError, match=r"broken\.py failed to run: ZeroDivisionError"):
        make_world(f"{file}:World")


def test_an_own_world_runs_in_a_process_of_its_own(own: str) -> None:
    host = WorldHost(parse_world(f"{own}:Counter?goal=2"))
    assert (host.info.rules, host.info.actions, host.info.turns) == ("Say more.", (), 7)
    worlds = [host.open(seed) for seed in (0, 2, 4, 0)]
    assert host.observe(worlds) == ["0:0", "2:0", "4:0", "0:0"]
    assert host.step([(worlds[3], "more")]) == [WorldStep("0:1", 1.0, done=False)]
    answers = host.step([(world, "more") for world in worlds])
    assert answers == [
        WorldStep("0:1", 1.0, done=False),
        WorldStep("2:1", 1.0, done=False),
        WorldStep("4:1", 1.0, done=False),
        WorldStep("0:2", 1.0, done=True),
    ]
    host.close(worlds)
    before = {child.pid for child in psutil.Process().children()}
    del host, worlds
    assert {child.pid for child in psutil.Process().children()} < before


def test_broken_worlds_fail_alone(own: str) -> None:
    host = WorldHost(parse_world(f"{own}:Counter?goal=9&timeout=1"))
    # Seeds that are equal share a process, so every failure happens beside a healthy world.
    words = ["raise", "hang", "crash", "number", "nan", "more"]
    worlds = [host.open(0) for _ in words]
    assert host.step([(world, "more") for world in worlds]) == [
        WorldStep("0:1", 1.0, done=False) for _ in words
    ]
    begun = time.monotonic()
    answers = host.step(list(zip(worlds, words, strict=True)))
    assert time.monotonic() - begun < 10
    reasons = [answer.reason for answer in answers[:5] if isinstance(answer, WorldFailure)]
    expected = [
        "raised ValueError: boom (own_worlds.py:",
        "hung: no answer within 1 s",
        "ended its process: exit code 7",
        "raised TypeError: step returned int",
        "raised ValueError: the reward nan",
    ]
    assert len(reasons) == 5
    for reason, part in zip(reasons, expected, strict=True):
        assert f"{own}:Counter (seed 0, turn 2) {part}" in reason
    assert answers[5] == WorldStep("0:2", 1.0, done=False)  # brought back twice, and went on
    assert host.step([(worlds[5], "more")]) == [WorldStep("0:3", 1.0, done=False)]
    host.close(worlds)


def test_a_question_that_is_broken_off_is_not_answered_by_its_successor(own: str) -> None:
    channel = Process(f"{own}:Counter", timeout=60)
    channel.ask("open", {"world": 0, "seed": 0})
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            channel.ask("step", {"world": 0, "action": "hang"})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert channel.life == 2
    assert channel.ask("open", {"world": 0, "seed": 3})["observation"] == "3:0"


def test_a_world_must_start_alike_from_equal_seeds(own: str) -> None:
    host = WorldHost(parse_world(f"{own}:Fickle"))
    [first] = host.observe([host.open(0)])
    [answer] = host.step([(host.open(0, first), "more")])
    assert isinstance(answer, WorldFailure) and "deterministic" in answer.reason


def test_a_world_that_hangs_at_its_start_is_given_up(own: str) -> None:
    host = WorldHost(parse_world(f"{own}:Stuck?timeout=0.25"))
    [answer] = host.observe([host.open(0)])
    assert isinstance(answer, WorldFailure) and "hung: no answer within 3 s" in answer.reason
