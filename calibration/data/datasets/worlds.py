"""Text worlds that a small pretrained model can half play without being taught."""

import random

from layerpick.training.environments.base import TextWorld, WorldStep


class Corridor(TextWorld):
    """Walk along numbered doors to the one that is wanted, one to three doors away."""

    actions = ("up", "down")
    turns = 4

    def reset(self, seed: int) -> str:
        """Doors are numbered from 1 to 30."""
        draw = random.Random(seed)
        self._goal = draw.randint(4, 27)
        self._place = self._goal + draw.choice((-3, -2, -1, 1, 2, 3))
        return self._seen()

    def step(self, action: str) -> WorldStep:
        """Reward 1 for standing at the door."""
        word = self.read(action)
        if word is None:
            return WorldStep(self._seen(), 0.0, done=False, valid=False)
        self._place += 1 if word == "up" else -1
        there = self._place == self._goal
        return WorldStep("" if there else self._seen(), float(there), done=there)

    def _seen(self) -> str:
        return f"Door {self._place}, wanted {self._goal}:"
