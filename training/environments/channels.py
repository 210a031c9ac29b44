"""The way to a server of worlds: in this process, or in one that can be killed (POSIX only)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any

from layerpick.training.environments.worker import WorldServer
from layerpick.training.errors import LayerpickError

START_FACTOR = 12
"""Starting an episode may load libraries and generate a game: it gets so many times the limit."""


class WorldError(Exception):
    """A world raised, hung or crashed; the message goes on from the world's name."""


class Channel(ABC):
    """Requests to one server of worlds, one at a time."""

    life: int = 1
    """Grows when the server is replaced, and all its worlds with it."""

    def ask(self, what: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A server's answer.

        Raises WorldError if the world raises, hangs or crashes, LayerpickError if it refuses.
        """
        answer = self.send({"do": what, "with": arguments})
        if "refused" in answer:
            raise LayerpickError(answer["refused"])
        if "raised" in answer:
            raise WorldError(f"raised {answer['raised']}")
        return answer

    @abstractmethod
    def send(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Carry a request to the server and its answer back."""


class InProcess(Channel):
    """A server right here."""

    def __init__(self, spec: str):
        self._server = WorldServer(spec)

    def send(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Call the server."""
        return self._server.answer(request)


class Process(Channel):
    """A server in a process of its own: started when first asked, killed when it hangs."""

    def __init__(self, spec: str, timeout: float):
        self._spec = spec
        self._timeout = timeout
        self._server: _Server | None = None

    def send(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Exchange messages with the process within the time limit."""
        limit = self._timeout * (1 if request["do"] == "step" else START_FACTOR)
        if self._server is None:
            self._server = _Server(self._spec, 2 * START_FACTOR * self._timeout)
        try:
            return self._server.exchange(request, limit)
        except BaseException:  # a broken exchange would leave its answer to the next question
            self._server.stop()
            self._server = None
            self.life += 1
            raise


class _Server:
    """A running process; it ends when stopped, or when nothing refers to it any more."""

    def __init__(self, spec: str, longest: float):
        self._connection, far_end = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        module = "layerpick.training.environments.worker"
        with far_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(far_end.fileno()), spec, str(longest)],
                pass_fds=[far_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is for the parent; killing takes children along
            )
        self.stop = weakref.finalize(self, _stop, self._process, self._connection, self._log)

    def exchange(self, request: Mapping[str, Any], limit: float) -> dict[str, Any]:
        """Send a request and wait for its answer, at most `limit` seconds."""
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            if not self._connection.poll(limit):
                raise WorldError(f"hung: no answer within {limit:g} s (option timeout)")
            return json.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise WorldError(f"ended its process: {self._last_words()}") from error

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"exit code {code}, {said[:200]}"


def _stop(process: subprocess.Popen, connection: Connection, log: IO[bytes]) -> None:
    connection.close()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    log.close()
