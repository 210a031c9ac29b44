"""Where worlds run: built-in ones here, all others in processes that can be killed.

A few processes share the worlds of a task, each driving its share one after another. When a world
hangs past its time limit or crashes its process, that process is replaced, the episode at fault
has failed, and the other episodes of the process are brought back by replaying their actions.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any

from layerpick.training.environments.base import WorldStep
from layerpick.training.environments.table import WorldSpec
from layerpick.training.environments.worker import WorldServer
from layerpick.training.errors import LayerpickError

MOST_PROCESSES = 8
START_FACTOR = 12
"""Starting an episode may load libraries and generate a game: it gets so many times the limit."""


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


class WorldError(Exception):
    """A world raised, hung or crashed."""


@dataclass(eq=False)
class HostedWorld:
    """One episode's world, and all that is needed to bring it back."""

    number: int
    seed: int
    channel: Channel
    actions: list[str] = field(default_factory=list)
    life: int = 0
    """The channel's life in which this world was opened."""
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

        def observe(world: HostedWorld) -> str:
            self._bring_back(world)
            assert world.first is not None
            return world.first

        return self._each(worlds, [lambda world=world: observe(world) for world in worlds])

    def step(self, moves: Sequence[tuple[HostedWorld, str]]) -> list[WorldStep | WorldFailure]:
        """Act in some worlds, one action for each."""

        def step(world: HostedWorld, action: str) -> WorldStep:
            self._bring_back(world)
            answer = world.channel.ask("step", {"world": world.number, "action": action})
            world.actions.append(action)
            return WorldStep(**answer)

        worlds = [world for world, _ in moves]
        return self._each(worlds, [lambda move=move: step(*move) for move in moves])

    def close(self, worlds: Iterable[HostedWorld]) -> None:
        """Release worlds."""
        for world in worlds:
            if world.life and world.life == world.channel.life:
                with suppress(WorldError):  # its episode is over: nothing is lost with it
                    world.channel.ask("close", {"world": world.number})

    def _each(
        self, worlds: Sequence[HostedWorld], jobs: Sequence[Callable[[], Any]]
    ) -> list[Any]:
        """Do one job for each world: channels side by side, a channel's jobs in turn."""
        results: list[Any] = [None] * len(jobs)
        shares: dict[Channel, list[int]] = defaultdict(list)
        for index, world in enumerate(worlds):
            shares[world.channel].append(index)

        def work(share: list[int]) -> None:
            for index in share:
                try:
                    results[index] = jobs[index]()
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

    def _bring_back(self, world: HostedWorld) -> None:
        """Start a world in its channel's present life and repeat what was done in it."""
        if world.life and world.life == world.channel.life:
            return
        answer = world.channel.ask("open", {"world": world.number, "seed": world.seed})
        if world.first is not None and world.first != answer["observation"]:
            raise WorldError("started differently from the same seed: it must be deterministic")
        world.first = answer["observation"]
        for action in world.actions:
            world.channel.ask("step", {"world": world.number, "action": action})
        world.life = world.channel.life


class Channel(ABC):
    """The way to a server of worlds."""

    life: int = 1
    """Grows when the server is replaced, and all its worlds with it."""

    def ask(self, what: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A server's answer.

        Raises WorldError if the world raises, hangs or crashes, LayerpickError if it refuses.
        """
        answer = self._send({"do": what, "with": arguments})
        if "refused" in answer:
            raise LayerpickError(answer["refused"])
        if "raised" in answer:
            raise WorldError(f"raised {answer['raised']}")
        return answer

    @abstractmethod
    def _send(self, request: Mapping[str, Any]) -> dict[str, Any]: ...


class InProcess(Channel):
    """A server in this process."""

    def __init__(self, spec: str):
        self._send = WorldServer(spec).answer  # type: ignore[method-assign]

    def _send(self, request: Mapping[str, Any]) -> dict[str, Any]: ...


class Process(Channel):
    """A server in a process of its own, started when first asked, killed when it hangs."""

    def __init__(self, spec: str, timeout: float):
        self._spec = spec
        self._timeout = timeout
        self._server: _Server | None = None

    def _send(self, request: Mapping[str, Any]) -> dict[str, Any]:
        step = request["do"] == "step"
        limit = self._timeout if step else START_FACTOR * self._timeout
        if self._server is None:
            self._server = _Server(self._spec, 2 * START_FACTOR * self._timeout)
        try:
            return self._server.exchange(request, limit)
        except WorldError:
            self._server.stop()
            self._server = None
            self.life += 1
            raise
