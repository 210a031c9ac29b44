"""Where worlds run: built-in ones here, all others in processes that can be killed.

A few processes share the worlds of a task, each driving its share one after another. When a world
hangs past its time limit or crashes its process, that process is replaced, the episode at fault
has failed, and the other episodes of the process are brought back by replaying their actions.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from layerpick.training.environments.base import WorldStep
from layerpick.training.environments.channels import Channel, InProcess, Process, WorldError
from layerpick.training.environments.table import WorldSpec
from layerpick.training.errors import LayerpickError

MOST_PROCESSES = 8


@dataclass(frozen=True)
class WorldFailure:
    """Why a world could not answer."""

    reason: str


@dataclass(frozen=True)
class WorldInfo:
    """What is the same for all episodes of a world."""

    rules: str
    actions: tuple[str, ...]
    turns: int


@dataclass(eq=False)
class HostedWorld:
    """One episode's world, and all that is needed to bring it back."""

    number: int
    seed: int
    channel: Channel
    actions: list[str] = field(default_factory=list)
    life: int = 0
    """The channel's life in which this world was opened; 0: not yet."""
    first: str | None = None
    """The observation it starts with, once known."""


class WorldHost:
    """Runs the worlds of one `--env` value."""

    def __init__(self, spec: WorldSpec):
        self._name = spec.name
        self._numbers = itertools.count()
        self._channels: list[Channel] = (
            [InProcess(spec.text)]
            if spec.kind.in_process
            else [Process(spec.text, spec.timeout) for _ in range(_processes())]
        )

    @cached_property
    def info(self) -> WorldInfo:
        """Rules, actions and usual number of turns.

        Raises LayerpickError for whatever keeps the world from being made.
        """
        try:
            answer = self._channels[0].ask("describe", {})
        except WorldError as error:
            raise LayerpickError(f"The environment '{self._name}' {error}.") from error
        return WorldInfo(answer["rules"], tuple(answer["actions"]), answer["turns"])

    def open(self, seed: int, first: str | None = None) -> HostedWorld:
        """A world that will start at its first step, or when it is observed.

        `first` is what it must then show.
        """
        # Equal seeds share a process, which keeps what it made for the seed.
        channel = self._channels[seed // 2 % len(self._channels)]
        return HostedWorld(next(self._numbers), seed, channel, first=first)

    def observe(self, worlds: Sequence[HostedWorld]) -> list[str | WorldFailure]:
        """Start worlds and read their first observations."""

        def observe(index: int) -> str:
            return self._bring_back(worlds[index])

        return self._each(worlds, observe)

    def step(self, moves: Sequence[tuple[HostedWorld, str]]) -> list[WorldStep | WorldFailure]:
        """Act in some worlds, one action for each."""

        def step(index: int) -> WorldStep:
            world, action = moves[index]
            self._bring_back(world)
            answer = world.channel.ask("step", {"world": world.number, "action": action})
            world.actions.append(action)
            return WorldStep(**answer)

        return self._each([world for world, _ in moves], step)

    def close(self, worlds: Iterable[HostedWorld]) -> None:
        """Release worlds."""
        for world in worlds:
            if world.life == world.channel.life:
                with suppress(WorldError):  # its episode is over: nothing is lost with it
                    world.channel.ask("close", {"world": world.number})

    def _each(self, worlds: Sequence[HostedWorld], job: Callable[[int], Any]) -> list[Any]:
        """Do a job for each world, by index: channels side by side, a channel's jobs in turn."""
        results: list[Any] = [None] * len(worlds)
        shares: dict[Channel, list[int]] = defaultdict(list)
        for index, world in enumerate(worlds):
            shares[world.channel].append(index)

        def work(share: list[int]) -> None:
            for index in share:
                try:
                    results[index] = job(index)
                except WorldError as error:
                    world = worlds[index]
                    place = f"seed {world.seed}, turn {len(world.actions) + 1}"
                    results[index] = WorldFailure(f"{self._name} ({place}) {error}")

        if len(shares) == 1:
            work(next(iter(shares.values())))
        elif shares:
            with ThreadPoolExecutor(len(shares)) as threads:
                list(threads.map(work, shares.values()))
        return results

    def _bring_back(self, world: HostedWorld) -> str:
        """Have a world in its channel's present life; returns its first observation."""
        if world.first is not None and world.life == world.channel.life:
            return world.first
        answer = world.channel.ask("open", {"world": world.number, "seed": world.seed})
        first = answer["observation"]
        if world.first not in (None, first):
            raise WorldError("started differently from the same seed: it must be deterministic")
        world.first = first
        for action in world.actions:
            world.channel.ask("step", {"world": world.number, "action": action})
        world.life = world.channel.life
        return first


def _processes() -> int:
    return min(os.cpu_count() or 1, MOST_PROCESSES)
