"""Worlds of one kind, driven by plain requests, so that they can live in a process of their own.

Requests and answers are JSON objects. Run as a module, this is that process: it is given the
descriptor of its end of a pipe, the `--env` value, and the longest a request may take.
"""

from __future__ import annotations

import faulthandler
import json
import math
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from layerpick.training.environments.base import TextWorld, WorldStep
from layerpick.training.environments.table import make_world
from layerpick.training.errors import LayerpickError


class WorldServer:
    """Holds the worlds of an `--env` value, each under the number it was opened with."""

    def __init__(self, spec: str):
        self._spec = spec
        self._worlds: dict[int, TextWorld] = {}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is asked.

        `refused` in the answer is a message for the person, `raised` what the world raised.
        """
        try:
            return getattr(self, f"_{request['do']}")(**request.get("with", {}))
        except LayerpickError as error:
            return {"refused": str(error)}
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = "".join(traceback.format_exception_only(error)).splitlines()[0][:200]
            return {"raised": f"{reason} ({Path(place.filename).name}:{place.lineno})"}

    def _describe(self) -> dict[str, Any]:
        world = make_world(self._spec)
        described = {"rules": world.rules, "actions": list(world.actions), "turns": world.turns}
        world.close()
        return described

    def _open(self, world: int, seed: int) -> dict[str, Any]:
        made = make_world(self._spec)
        observation = _text(made.reset(seed))
        self._worlds[world] = made
        return {"observation": observation}

    def _step(self, world: int, action: str) -> dict[str, Any]:
        step = self._worlds[world].step(action)
        if not isinstance(step, WorldStep):
            raise TypeError(f"step returned {type(step).__name__}, not WorldStep")
        if not math.isfinite(step.reward):
            raise ValueError(f"the reward {step.reward} is not a finite number")
        _text(step.observation)
        return asdict(step)

    def _close(self, world: int) -> dict[str, Any]:
        if world in self._worlds:
            self._worlds.pop(world).close()
        return {}


def _text(observation: Any) -> str:
    if not isinstance(observation, str):
        raise TypeError(f"the observation is {type(observation).__name__}, not text")
    return observation


def main() -> None:
    """Answer requests until the other end of the pipe is closed."""
    connection = Connection(int(sys.argv[1]))
    server = WorldServer(sys.argv[2])
    longest = float(sys.argv[3])
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        # A world that hangs after its parent was killed would otherwise run for ever.
        faulthandler.dump_traceback_later(longest, exit=True)
        answer = server.answer(request)
        faulthandler.cancel_dump_traceback_later()
        connection.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
