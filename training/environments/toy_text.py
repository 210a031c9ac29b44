"""Gymnasium's toy-text worlds, rendered as a few short lines.

An observation is the whole state, so equal observations are equal states (what chance holds ready
in a slippery world, and a fickle passenger's mood, stay hidden). The default reward is 1 for
reaching the world's goal, else 0, so that an episode's reward is a rate of success; `reward=own`
gives gymnasium's: -1 a step in CliffWalking and Taxi, -100 off the cliff, +20 and -10 in Taxi.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, validate_call

from layerpick.training.environments.base import TextWorld, WorldStep
from layerpick.training.errors import LayerpickError

Reward = Literal["success", "own"]
Share = Annotated[float, Field(ge=0, le=1)]
AGENT = "A"


class ToyWorld(TextWorld):
    """A gymnasium world with one integer as its state; `actions` are in gymnasium's order."""

    def __init__(self, name: str, reward: Reward, **options: Any):
        self._name = name
        self._reward = reward
        self._options = options
        self._env: Any = None
        self._state = 0

    def reset(self, seed: int) -> str:
        """Start at the world's first state; the seed also decides every later chance."""
        options = {**self._options, **self._drawn(seed)}
        # A copy shares the table of transitions, which is slow to build.
        self._env = copy.copy(_built(self._name, tuple(sorted(options.items()))))
        self._state, _ = self._env.reset(seed=seed)
        return self._render()

    def step(self, action: str) -> WorldStep:
        """One gymnasium step."""
        known = self.read(action)
        if known is None:
            return WorldStep(self._render(), 0.0, done=False, valid=False)
        self._state, own, done, *_ = self._env.step(self.actions.index(known))
        reward = float(own) if self._reward == "own" else float(done and self._won(own))
        return WorldStep(self._render(), reward, done)

    def _drawn(self, seed: int) -> dict[str, Any]:  # noqa: ARG002 - most worlds draw nothing
        """Options that the seed decides."""
        return {}

    def _won(self, reward: float) -> bool:  # noqa: ARG002 - most worlds only end well
        """Whether an episode that has just ended with this own reward reached the goal."""
        return True

    @abstractmethod
    def _render(self) -> str:
        """The whole state as text."""


class FrozenLake(ToyWorld):
    """FrozenLake-v1: the world's own maps, or with `size` a random solvable map for each seed.

    `p` is the share of frozen tiles in random maps; `success_rate` is the chance that a slippery
    step goes where it should. Small random maps may come up in both splits.
    """

    actions = ("left", "down", "right", "up")
    rules = (
        "You cross a frozen lake. The map shows you as A, the start S, frozen tiles F, holes H and "
        "the goal G. Reach G without stepping on H. Answer with one word: left, down, right or up."
    )

    @validate_call
    def __init__(
        self,
        map_name: Literal["4x4", "8x8"] | None = None,
        size: Annotated[int, Field(ge=2, le=16)] | None = None,
        p: Annotated[float, Field(ge=0.6, le=1)] = 0.8,
        is_slippery: bool = True,
        success_rate: Share = 1 / 3,
        reward: Reward = "success",
    ):
        if map_name and size:
            raise LayerpickError("FrozenLake-v1 takes map_name or size, not both.")
        super().__init__(
            "FrozenLake-v1", reward, is_slippery=is_slippery, success_rate=success_rate
        )
        self._map = map_name or "4x4"
        self._size, self._frozen = size, p
        self.turns = 3 * (size or int(self._map[0])) - 2

    def _drawn(self, seed: int) -> dict[str, Any]:
        from gymnasium.envs.toy_text.frozen_lake import generate_random_map

        if self._size is None:
            return {"map_name": self._map}
        return {"desc": tuple(generate_random_map(self._size, self._frozen, seed))}

    def _won(self, reward: float) -> bool:
        return reward > 0

    def _render(self) -> str:
        rows = [[tile.decode() for tile in row] for row in self._env.desc.tolist()]
        row, column = divmod(int(self._state), len(rows[0]))
        return _grid(rows, row, column)


class CliffWalking(ToyWorld):
    """CliffWalking-v1; a step over the cliff leads back to the start. One initial state."""

    actions = ("up", "right", "down", "left")
    turns = 26
    rules = (
        "You walk along a cliff. The map shows you as A, the start S, the cliff C and the goal G. "
        "Reach G without stepping on C. Answer with one word: up, right, down or left."
    )

    @validate_call
    def __init__(self, is_slippery: bool = False, reward: Reward = "success"):
        super().__init__("CliffWalking-v1", reward, is_slippery=is_slippery)

    def _render(self) -> str:
        height, width = self._env.shape
        rows = [["."] * width for _ in range(height)]
        rows[-1] = ["S", *"C" * (width - 2), "G"]
        row, column = divmod(int(self._state), width)
        return _grid(rows, row, column)


class Taxi(ToyWorld):
    """Taxi-v4: 300 initial states."""

    actions = ("down", "up", "right", "left", "pickup", "dropoff")
    turns = 30
    rules = (
        "You drive a taxi. The map shows you as A, the places R, G, Y and B, and walls as |. Fetch "
        "the passenger and drop them at their destination. Answer with one word: down, up, right, "
        "left, pickup or dropoff."
    )

    @validate_call
    def __init__(
        self,
        is_rainy: bool = False,
        fickle_passenger: bool = False,
        rainy_probability: Share = 0.8,
        fickle_probability: Share = 0.3,
        reward: Reward = "success",
    ):
        super().__init__(
            "Taxi-v4",
            reward,
            is_rainy=is_rainy,
            fickle_passenger=fickle_passenger,
            rainy_probability=rainy_probability,
            fickle_probability=fickle_probability,
        )

    def _render(self) -> str:
        row, column, passenger, destination = self._env.decode(int(self._state))
        rows = [[tile.decode() for tile in line] for line in self._env.desc.tolist()[1:-1]]
        places = ("R", "G", "Y", "B", "taxi")
        return (
            f"{_grid(rows, row, 2 * column + 1)}\n"
            f"passenger {places[passenger]} destination {places[destination]}"
        )


def _grid(rows: list[list[str]], row: int, column: int) -> str:
    rows[row][column] = AGENT
    return "\n".join("".join(tiles) for tiles in rows)


@lru_cache(maxsize=1024)
def _built(name: str, options: tuple[tuple[str, Any], ...]) -> Any:
    import gymnasium

    return gymnasium.make(name, **dict(options)).unwrapped


TOY_WORLDS: Mapping[str, type[ToyWorld]] = {
    "FrozenLake-v1": FrozenLake,
    "CliffWalking-v1": CliffWalking,
    "Taxi-v4": Taxi,
}
