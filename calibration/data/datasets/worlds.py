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


class Market(TextWorld):
    """Name who sells what is wanted, at two stalls, and once more at two others."""

    turns = 2
    _names = ("Ann", "Bob", "Dan", "Eve", "Kim", "Max", "Sue", "Tom")
    _goods = ("bread", "corn", "fish", "honey", "milk", "rice", "salt", "soap", "tea", "wine")

    def reset(self, seed: int) -> str:
        """The first two stalls."""
        self._draw = random.Random(seed)
        self._left = self.turns
        return self._next()

    def step(self, action: str) -> WorldStep:
        """Half the reward for each right name; a wrong one ends the episode."""
        if (self.read(action) or "").lower() != self._seller.lower():
            return WorldStep("", 0.0, done=True)
        self._left -= 1
        done = self._left == 0
        return WorldStep("" if done else self._next(), 1 / self.turns, done)

    def _next(self) -> str:
        names, goods = self._draw.sample(self._names, 2), self._draw.sample(self._goods, 2)
        wanted = self._draw.randrange(2)
        self._seller = names[wanted]
        stalls = " ".join(f"{n} sells {g}." for n, g in zip(names, goods, strict=True))
        return f"{stalls} Who sells {goods[wanted]}?"
