"""Frozen lakes crossed over several turns, by a guide whose steps are partly random.

Episodes are played in the agentic task's own world and written in its own words, so a model that
learned from them reads that task's prompts as they come. Seeds are even: training episodes.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from layerpick.training.environments.base import TextWorld
from layerpick.training.environments.table import make_world
from layerpick.training.pretraining.pretrain import Corpus, Document
from layerpick.training.tasks.agentic import TURN_END, turn_text

MOVES = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}


def clumsy_walks(env: str, astray: float) -> Corpus:
    """Episodes of a FrozenLake `env`, a share `astray` of whose steps go in a random direction."""

    def documents(generator: random.Random) -> Iterator[Document]:
        world = make_world(env)
        while True:
            yield _walk(world, astray, generator)

    return documents


def _walk(world: TextWorld, astray: float, generator: random.Random) -> Document:
    observation = world.reset(2 * generator.getrandbits(30))
    texts: list[str] = []
    for _ in range(world.turns):
        lost = generator.random() < astray
        action = generator.choice(list(MOVES)) if lost else way_to_goal(observation)
        texts += [turn_text(observation), action + TURN_END]
        step = world.step(action)
        if step.done:
            break
        observation = step.observation
    return tuple(texts)


def way_to_goal(grid: str) -> str:
    """First move of a shortest way from A to G that keeps off the holes (H)."""
    rows = grid.split("\n")
    tiles = {(r, c): tile for r, row in enumerate(rows) for c, tile in enumerate(row)}
    start = next(place for place, tile in tiles.items() if tile == "A")
    first: dict[tuple[int, int], str] = {start: ""}
    queue = deque([start])
    while queue:
        place = queue.popleft()
        if tiles[place] == "G":
            return first[place]
        for move, (down, right) in MOVES.items():
            neighbour = (place[0] + down, place[1] + right)
            if tiles.get(neighbour, "H") != "H" and neighbour not in first:
                first[neighbour] = first[place] or move
                queue.append(neighbour)
    raise ValueError(f"no way leads to the goal in {grid!r}")
