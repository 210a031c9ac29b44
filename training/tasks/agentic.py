"""Agentic: text worlds played over several turns.

A turn reads `turn_text(observation)` and writes an action and a line end; a raw model thus sees
one text of such turns, a chat model sees each observation as a user's message. The reward of a
turn is the world's, less a penalty if the action was invalid; an invalid action changes nothing
in the world but counts as a turn.

A prompt is an episode's seed: even seeds train, odd seeds are held out, so no episode is in both
splits. A world may still start alike for different seeds: FrozenLake's own map and CliffWalking
have a single initial state, which then is that of every prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from layerpick.training.environments.base import WorldStep
from layerpick.training.environments.hosting import HostedWorld, WorldFailure, WorldHost
from layerpick.training.environments.table import parse_world
from layerpick.training.episodes.trajectory import hash_text
from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.base import Episodes, Prompt, Split, StepResult, Task, TaskSettings

DEFAULT_ENV = "FrozenLake-v1?is_slippery=false"
DEFAULT_PENALTY = 0.1
TURN_END = "\n"
"""What a raw model writes after an action: its stop string."""
INVALID_NOTE = "invalid\n"
"""Comes before the observation that follows an invalid action."""
FIRST_TRIES = 4
"""When so many worlds in a row cannot be started from the first on, the run stops."""


def turn_text(observation: str) -> str:
    """What the model reads before it writes an action."""
    return f"{observation}\n>"


class AgenticTask(Task):
    """Episodes in a text world, one action a turn."""

    name = "agentic"
    default_algorithm = "gigpo"
    max_new_tokens = 16
    max_chat_tokens = 16
    conversational = True

    def __init__(self, settings: TaskSettings):
        super().__init__(settings)
        for option in ("reward", "dataset"):
            if getattr(settings, option) is not None:
                raise LayerpickError(
                    f"The agentic task takes no --{option}: its world (--env) gives prompts and "
                    f"rewards."
                )
        if settings.instruction:
            raise LayerpickError(
                "The agentic task takes no --instruction: its world says what to do; --system is "
                "said before it."
            )
        penalty, turns = settings.invalid_penalty, settings.max_turns
        if penalty is not None and not 0 <= penalty < float("inf"):
            raise LayerpickError(f"The --invalid-penalty must be 0 or more, not {penalty}.")
        if turns is not None and turns < 1:
            raise LayerpickError(f"The --max-turns must be 1 or more, not {turns}.")
        self._penalty = DEFAULT_PENALTY if penalty is None else penalty
        self._world = parse_world(self.source)

    @property
    def source(self) -> str:
        """The world and its options."""
        return self.settings.env or DEFAULT_ENV

    @property
    def max_turns(self) -> int:
        """Turns after which an episode ends: the person's choice, or else the world's."""
        return self.settings.max_turns or self._host.info.turns

    def prompts(self, split: Split, count: int, seed: int) -> tuple[Prompt, ...]:
        """The world's rules and first observation for `count` seeds; with a template, the latter.

        Columns: `seed`, `observation` and `rules`. A world that cannot be started still gives a
        prompt, whose episodes fail. Raises LayerpickError if none of the first few can.
        """
        parity = int(split == "heldout")
        generator = np.random.default_rng([seed, parity])
        seeds = (2 * generator.integers(2**30, size=count) + parity).tolist()
        firsts = self._observe(seeds[:FIRST_TRIES])
        failures = [first for first in firsts if isinstance(first, WorldFailure)]
        if failures and len(failures) == len(firsts):
            raise LayerpickError(f"No episode could be started: {failures[0].reason}.")
        firsts += self._observe(seeds[FIRST_TRIES:])
        return tuple(map(self._prompt, seeds, firsts))

    def open(self, prompts: Sequence[Prompt]) -> Episodes:
        """Start each prompt's episode from its seed."""
        worlds = [
            self._host.open(prompt.columns["seed"], prompt.columns["observation"] or None)
            for prompt in prompts
        ]
        return _AgenticEpisodes(self._host, worlds, self.max_turns, self._penalty)

    def fingerprint(self) -> str:
        """Hash of the world's name and options, and of its file if it is the person's own."""
        own = Path(self._world.name.rpartition(":")[0])
        code = own.read_text(encoding="utf-8") if own.suffix == ".py" else ""
        identity = [Path(self._world.name).name, dict(self._world.options), code]
        return hash_text(json.dumps(identity, sort_keys=True))

    def check(self) -> None:
        """Make the world once. Raises LayerpickError for a missing extra or a bad option."""
        _ = self._host.info

    @cached_property
    def _host(self) -> WorldHost:
        return WorldHost(self._world)

    def _observe(self, seeds: Sequence[int]) -> list[str | WorldFailure]:
        worlds = [self._host.open(seed) for seed in seeds]
        try:
            return self._host.observe(worlds)
        finally:
            self._host.close(worlds)

    def _prompt(self, seed: int, first: str | WorldFailure) -> Prompt:
        observation = "" if isinstance(first, WorldFailure) else first
        rules = self._host.info.rules
        text = turn_text(observation)
        content = f"{rules}\n\n{text}" if rules and self.settings.template is None else text
        columns = {"seed": seed, "observation": observation, "rules": rules}
        return Prompt(content, columns, f"{self._world.name}[seed {seed}]", state=observation)


@dataclass
class _AgenticEpisodes(Episodes):
    host: WorldHost
    worlds: Sequence[HostedWorld]
    max_turns: int
    penalty: float
    taken: dict[int, int] = field(default_factory=dict)
    """Turns taken by each episode."""

    def step(self, actions: Mapping[int, str]) -> dict[int, StepResult]:
        moves = [(self.worlds[index], text.strip()) for index, text in actions.items()]
        outcomes = zip(actions, self.host.step(moves), strict=True)
        return {index: self._result(index, outcome) for index, outcome in outcomes}

    def close(self) -> None:
        self.host.close(self.worlds)

    def _result(self, index: int, outcome: WorldStep | WorldFailure) -> StepResult:
        if isinstance(outcome, WorldFailure):
            return StepResult(0.0, done=True, failure=outcome.reason)
        self.taken[index] = self.taken.get(index, 0) + 1
        reward = outcome.reward if outcome.valid else outcome.reward - self.penalty
        if outcome.done or self.taken[index] == self.max_turns:
            return StepResult(reward, done=True)
        note = "" if outcome.valid else INVALID_NOTE
        return StepResult(
            reward,
            done=False,
            observation=note + turn_text(outcome.observation),
            state=outcome.observation,
        )
