"""What runs inside the sandboxes: the guest (generated program) and the judge (tests).

Guest and judge are two processes that cannot see each other. The judge holds the tests and calls
the guest's functions over a socket; values cross it as plain data. The verdict leaves through a
pipe that only the judge has, signed with a token that it was given.

This file is no module to import: `jail` hands it, compiled, to a bare interpreter, which runs it
in one namespace after `wire`. So it imports next to nothing.
"""

from __future__ import annotations

import builtins
import posix  # as `os`, at a fraction of its cost: see `wire`
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from layerpick.training.sandbox.wire import PROGRAM_ENDED, MessageSocket, decode, encode


class ByHandle:
    """A value that stays in the guest even if it could travel as plain data."""

    def __init__(self, value: Any):
        self.value = value


class Guest:
    """Runs the generated program and, for a judge, calls its functions."""

    def __init__(self, code: str, name: str):
        self._code = code
        self._kept: list[Any] = []
        module = type(sys)(name)
        self._names = module.__dict__
        sys.modules[name] = module
        sys.argv = ["program.py"]

    def run(self) -> None:
        """Execute the program's top level."""
        exec(compile(self._code, "program.py", "exec"), self._names)

    def serve(self, channel: MessageSocket) -> None:
        """Load the program, then answer requests until the judge is gone."""
        channel.send(self._answer(self.run))
        while True:
            channel.send(self._answer(self._obey, channel.receive()))

    def _answer(self, action: Callable[..., Any], *arguments: Any) -> bytes:
        try:
            return encode(("value", action(*arguments)), self._keep)
        except BaseException as error:
            return encode(("raised", type(error).__name__, str(error)[:500]), self._keep)

    def _obey(self, request: bytes) -> tuple[Any, Any]:
        """The result, and, of a call that returned None, its arguments as they are after it."""
        verb, target, by_handle, *rest = decode(request, self._value)
        if verb == "call":
            arguments, named = rest
            result = target(*arguments, **named)
            by_handle |= isinstance(target, type)
        else:
            arguments = None
            verbs: dict[str, Callable[..., Any]] = {"get": getattr, "set": setattr, "list": list}
            result = verbs[verb](target, *rest)
        return ByHandle(result) if by_handle else result, arguments if result is None else None

    def _keep(self, value: Any) -> int:
        self._kept.append(value.value if type(value) is ByHandle else value)
        return len(self._kept) - 1

    def _value(self, handle: int | str) -> Any:
        if isinstance(handle, int):
            return self._kept[handle]
        if handle not in self._names:
            raise NameError(f"the program does not define '{handle}'")
        return self._names[handle]


class ProgramError(Exception):
    """The program under test raised, ended, or answered with something unreadable."""


_SILENT = (StopIteration, StopAsyncIteration)
"""Exceptions that would cut a loop over results short instead of failing the test."""


class Judge:
    """Runs the tests; every name of the program that they use is a `Remote`."""

    def __init__(self, channel: MessageSocket, modules: list[str]):
        self._channel = channel
        self._lost: str | None = None
        self._namespace: dict[str, Any] = {name: __import__(name) for name in modules}
        self._namespace["__name__"] = "tests"

    def problems(
        self, setup: str, tests: list[tuple[str, int]], names: list[str], entry_point: str | None
    ) -> list[str]:
        """What is wrong, for each assertion in turn; '' where it held.

        A test is a source text in which every assertion reports to `__record__`, and their number.
        One without assertions counts as one that holds if the test runs to its end. A program that
        ends, or stops making sense, before its last test has passed none of them.
        """
        for name in names:
            self._namespace[name] = Remote(self, name, opaque=name != entry_point)
        try:
            self._reply()
            self._execute(setup)
            problems = [problem for test in tests for problem in self._run_test(*test)]
            failure = self._lost
        except BaseException as error:
            failure = describe(error)
        if failure is None:
            return problems
        return [failure] * sum(max(count, 1) for _, count in tests)

    def _run_test(self, source: str, count: int) -> list[str]:
        unreached = "not reached"
        problems = [unreached] * count

        def record(index: int, held: Any, error: BaseException | None = None) -> None:
            if problems[index] in ("", unreached):
                problems[index] = describe(error) if error else "" if held else "false"

        self._namespace["__record__"] = record
        try:
            self._execute(source)
        except BaseException as error:
            reason = describe(error)
            problems = [reason if problem == unreached else problem for problem in problems]
            if not any(problems):
                problems[-1:] = [reason]
        return problems or [""]

    def _execute(self, source: str) -> None:
        if "random" in source:  # the same program gets the same verdict
            import random

            random.seed(0)
        exec(compile(source, "tests", "exec"), self._namespace)

    def ask(self, verb: str, remote: Remote, by_handle: bool, *rest: Any) -> Any:
        """Have the guest do something with one of its values."""
        self._send(encode((verb, remote, by_handle, *rest), _handle))
        result, changed = self._reply()
        if by_handle:
            return Remote(self, _handle(result), opaque=True)
        if result is None and changed is not None:
            for mine, theirs in zip(rest[0], changed, strict=True):
                _copy_into(mine, theirs)
        return result

    def _send(self, request: bytes) -> None:
        if self._lost is None:
            try:
                self._channel.send(request)
            except OSError:
                self._lost = PROGRAM_ENDED

    def _reply(self) -> Any:
        """The guest's answer; an exception of the guest is raised here under its built-in name."""
        try:
            if self._lost is None:
                kind, *content = decode(self._channel.receive(), self._remote)
        except (OSError, EOFError) as error:
            self._lost = PROGRAM_ENDED if isinstance(error, ConnectionError) else str(error)
        except Exception:
            self._lost = "the program's answer is unreadable"
        if self._lost is not None:
            raise ProgramError(self._lost)
        if kind == "value":
            return content[0]
        name, text = content
        known = getattr(builtins, name, None)
        if isinstance(known, type) and issubclass(known, Exception) and known not in _SILENT:
            raise known(text)
        raise ProgramError(f"{name}: {text}")

    def _remote(self, handle: Any) -> Remote:
        return Remote(self, handle, opaque=False)


class Remote:
    """A value that stays in the guest: it can be called, read, written and listed, not compared.

    `opaque` ones are what helpers of the program return (constructors, say): they can be handed
    back to the program and nothing else, so that no helper of its own can sway a test.
    """

    __slots__ = ("_handle", "_judge", "_opaque")

    def __init__(self, judge: Judge, handle: int | str, opaque: bool):
        object.__setattr__(self, "_judge", judge)
        object.__setattr__(self, "_handle", handle)
        object.__setattr__(self, "_opaque", opaque)

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: D102 - as the guest's
        return self._judge.ask("call", self, self._opaque, arguments, named)

    def __getattr__(self, name: str) -> Any:
        return self._judge.ask("get", self, self._opaque, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._judge.ask("set", self, False, name, value)

    def __iter__(self) -> Any:
        if self._opaque:
            raise TypeError("what a helper of the program returns cannot be read")
        return iter(self._judge.ask("list", self, False))

    def __bool__(self) -> bool:
        raise TypeError("an object of the program is neither true nor false")


def _handle(value: Any) -> int | str:
    if type(value) is not Remote:
        raise TypeError(f"a {type(value).__name__} cannot be handed to the program")
    return value._handle


def _copy_into(mine: Any, theirs: Any) -> None:
    """Repeat on the judge's argument what a function that works in place did to the guest's."""
    if type(mine) is not type(theirs) or mine is theirs:
        return
    if isinstance(mine, list | bytearray):
        mine[:] = theirs
    elif isinstance(mine, dict | set):
        mine.clear()
        mine.update(theirs)


def describe(error: BaseException) -> str:
    """One line about an exception."""
    kind = "" if type(error) is ProgramError else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())[:200] or "error"


def limit(cpu_seconds: int, memory: int, processes: int, file_size: int) -> None:
    """Bound this process and its children; `processes` 0 leaves their number alone."""
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_SIGPENDING: 64,
    }
    if processes:
        limits[resource.RLIMIT_NPROC] = processes
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def detached_output() -> int:
    """A private copy of standard output, which itself then leads nowhere."""
    private = posix.dup(1)
    posix.dup2(posix.open("/dev/null", posix.O_WRONLY), 1)
    return private


def main(job: bytes, socket: int) -> None:
    """Take on the job's limits and play its role; `socket` joins judge and guest."""
    role, limits, largest, *work = decode(job, lambda handle: handle)
    limit(*limits)
    for name in list(posix.environ):
        del posix.environ[name]
        posix.unsetenv(name)
    channel = MessageSocket(socket, largest)
    if role == "judge":
        token, modules, *suite = work
        result = detached_output()
        problems = Judge(channel, modules).problems(*suite)
        posix.write(result, encode((token, problems), _handle))
    elif role == "guest":
        Guest(work[0], "solution").serve(channel)
    else:
        Guest(work[0], "__main__").run()
