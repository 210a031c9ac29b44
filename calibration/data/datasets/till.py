"""A text world of sums that a small pretrained model can half play without being taught."""

import random

from layerpick.training.environments.base import TextWorld, WorldStep


class Till(TextWorld):
    """Keep the sum of a till right while money goes in and out, twice."""

    turns = 2

    def reset(self, seed: int) -> str:
        """The first change; sums stay between 1 and 9."""
        self._draw = random.Random(seed)
        self._left = self.turns
        self._sum = self._draw.randint(1, 9)
        return self._next()

    def step(self, action: str) -> WorldStep:
        """Half the reward for each right sum; a wrong one ends the episode."""
        if self.read(action) != str(self._sum):
            return WorldStep("", 0.0, done=True)
        self._left -= 1
        done = self._left == 0
        return WorldStep("" if done else self._next(), 1 / self.turns, done)

    def _next(self) -> str:
        before = self._sum
        self._sum = self._draw.choice([n for n in range(1, 10) if n != before])
        sign = "+" if self._sum > before else "-"
        return f"{before} {sign} {abs(self._sum - before)} ="
