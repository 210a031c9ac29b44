"""A world of one's own: open the right one of three doors.

layerpick suggest MODEL --task agentic --env examples/own_world.py:Doors
layerpick suggest MODEL --task agentic --env 'examples/own_world.py:Doors?hints=false'
"""

import random

from layerpick.training.environments.base import TextWorld, WorldStep


class Doors(TextWorld):
    """One door hides a prize; a wrong one may tell on which side to look on."""

    rules = "There are three doors: left, middle and right. Open the one with the prize."
    actions = ("left", "middle", "right")
    turns = 2

    def __init__(self, hints: bool = True):
        self._hints = hints
        self._prize = 0

    def reset(self, seed: int) -> str:
        """The seed says where the prize is."""
        self._prize = random.Random(seed).randrange(3)
        return "All doors are shut. Which one do you open?"

    def step(self, action: str) -> WorldStep:
        """Reward 1 for the prize."""
        if action not in self.actions:
            return WorldStep("There is no such door.", 0.0, done=False, valid=False)
        chosen = self.actions.index(action)
        if chosen == self._prize:
            return WorldStep("The prize!", 1.0, done=True)
        side = "to the left" if self._prize < chosen else "to the right"
        return WorldStep(f"Nothing here. Look {side}." if self._hints else "Nothing.", 0.0, False)
