"""What runs inside the sandboxes: the guest (generated program) and the judge (tests).

This file imports next to nothing: compiled, it is handed to a bare interpreter.
Guest and judge are two processes that cannot see each other. The judge holds the tests and calls
the guest's functions over a socket; values cross it as plain data in the format of `encode`, so
that whatever the guest sends is only ever a number, a text, a container of these, or a handle.
The verdict leaves through a pipe that only the judge has, signed with a token that it was given.
"""

from __future__ import annotations

import builtins
import os
import resource
import sys

TYPE_CHECKING = False  # importing `typing` takes longer than starting Python
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# --- Plain data as bytes: a one-letter tag, a length (4 bytes) and the content. ---

_ATOMS: dict[type, tuple[bytes, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    type(None): (b"N", lambda value: b"", lambda data: None),
    bool: (b"B", lambda value: b"1" if value else b"", bool),
    int: (b"I", lambda value: int.__format__(value, "x").encode(), lambda data: int(data, 16)),
    float: (b"F", lambda value: float.__repr__(value).encode(), float),
    complex: (b"C", lambda value: complex.__repr__(value).encode(), lambda data: complex(data.decode())),
    str: (
        b"S",
        lambda value: str.encode(value, "utf-8", "surrogatepass"),
        lambda data: data.decode("utf-8", "surrogatepass"),
    ),
    bytes: (b"Y", bytes, bytes),
    bytearray: (b"A", bytes, bytearray),
}
_SEQUENCES: dict[type, bytes] = {list: b"L", tuple: b"T", set: b"U", frozenset: b"Z", range: b"R"}
_ATOM_READERS = {tag: read for tag, _, read in _ATOMS.values()}
_SEQUENCE_MAKERS: dict[bytes, type] = {tag: kind for kind, tag in _SEQUENCES.items()}
_KINDS = (*_ATOMS, *_SEQUENCES, dict)
_DICT, _HANDLE = b"D", b"H"


def encode(value: Any, handle_of: Callable[[Any], int | str]) -> bytes:
    """Plain data as bytes; any other value as the handle that `handle_of` gives it."""
    parts: list[bytes] = []
    _write(value, handle_of, parts)
    return b"".join(parts)


def _write(value: Any, handle_of: Callable[[Any], int | str], parts: list[bytes]) -> None:
    kind = type(value)
    if kind not in _KINDS:  # a subclass such as Counter or an IntEnum travels as its base
        kind = next((base for base in _KINDS if isinstance(value, base)), object)
    if kind in _ATOMS:
        tag, write, _ = _ATOMS[kind]
        content = write(value)
        parts += (tag, len(content).to_bytes(4, "big"), content)
        return
    if kind is range:
        items: list[Any] = [value.start, value.stop, value.step]
    elif kind in _SEQUENCES:
        items = list(kind.__iter__(value))
    elif kind is dict:
        items = [part for pair in dict.items(value) for part in pair]
    else:
        items = [handle_of(value)]
    tag = _SEQUENCES.get(kind) or (_DICT if kind is dict else _HANDLE)
    parts += (tag, len(items).to_bytes(4, "big"))
    for item in items:
        _write(item, handle_of, parts)


def decode(data: bytes, value_of: Callable[[Any], Any]) -> Any:
    """The inverse of `encode`; raises ValueError or TypeError for anything it cannot have made."""
    value, end = _read(data, 0, value_of)
    if end != len(data):
        raise ValueError("bytes after the end of a value")
    return value


def _read(data: bytes, start: int, value_of: Callable[[Any], Any]) -> tuple[Any, int]:
    tag, length = data[start : start + 1], int.from_bytes(data[start + 1 : start + 5], "big")
    position = start + 5
    if position > len(data):
        raise ValueError("a value is cut off")
    if tag in _ATOM_READERS:
        content = data[position : position + length]
        if len(content) != length:
            raise ValueError("a value is cut off")
        return _ATOM_READERS[tag](content), position + length
    items = []
    for _ in range(length):
        item, position = _read(data, position, value_of)
        items.append(item)
    if tag == _HANDLE:
        return value_of(*items), position
    if tag == _DICT:
        return dict(zip(items[::2], items[1::2], strict=True)), position
    if tag == b"R":
        return range(*items), position
    return _SEQUENCE_MAKERS[tag](items), position


# --- The socket between judge and guest. ---


class ProgramError(Exception):
    """The program under test raised, ended, or answered with something unreadable."""


class Channel:
    """Messages over a socket, each with its length (4 bytes) in front."""

    def __init__(self, descriptor: int, largest: int):
        self._descriptor = descriptor
        self._largest = largest

    def send(self, data: bytes) -> None:
        """Write one message."""
        data = len(data).to_bytes(4, "big") + data
        while data:
            data = data[os.write(self._descriptor, data) :]

    def receive(self) -> bytes:
        """Read one message. Raises EOFError at the end and OSError when it is too long."""
        length = int.from_bytes(self._exactly(4), "big")
        if length > self._largest:
            os.close(self._descriptor)
            raise OSError("the answer is too long")
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = os.read(self._descriptor, count - len(data))
            if not part:
                raise EOFError("the program ended")
            data += part
        return bytes(data)


# --- The guest. ---


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

    def serve(self, channel: Channel) -> None:
        """Load the program, then answer requests until the judge is gone."""
        channel.send(self._answer(self.run))
        while True:
            request = decode(channel.receive(), self._value)
            channel.send(self._answer(self._obey, *request))

    def _answer(self, action: Callable[..., Any], *arguments: Any) -> bytes:
        try:
            return encode(("value", action(*arguments)), self._keep)
        except BaseException as error:
            return encode(("raised", type(error).__name__, str(error)[:500]), self._keep)

    def _obey(self, verb: str, target: Any, by_handle: bool, *rest: Any) -> tuple[Any, Any]:
        """The result (or its handle), and, of a call that returned None, its arguments after it."""
        if verb == "call":
            arguments, named = rest
            result = target(*arguments, **named)
        else:
            arguments = None
            result = {"get": getattr, "set": setattr, "list": list}[verb](target, *rest)
        return self._keep(result) if by_handle else result, arguments if result is None else None

    def _keep(self, value: Any) -> int:
        self._kept.append(value)
        return len(self._kept) - 1

    def _value(self, handle: int | str) -> Any:
        if isinstance(handle, int):
            return self._kept[handle]
        if handle not in self._names:
            raise NameError(f"the program does not define '{handle}'")
        return self._names[handle]


# --- The judge. ---


_SILENT = (StopIteration, StopAsyncIteration)
"""Exceptions that would cut a loop over results short instead of failing the test."""


class Judge:
    """Runs the tests; every name of the program that they use is a `Remote`."""

    def __init__(self, channel: Channel, modules: list[str]):
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
            return Remote(self, result, opaque=True)
        if result is None and changed is not None:
            for mine, theirs in zip(rest[0], changed, strict=True):
                _copy_into(mine, theirs)
        return result

    def _send(self, request: bytes) -> None:
        if self._lost is None:
            try:
                self._channel.send(request)
            except OSError:
                self._lost = "the program ended"

    def _reply(self) -> Any:
        """The guest's answer; an exception of the guest is raised here under its built-in name."""
        try:
            if self._lost is None:
                kind, *content = decode(self._channel.receive(), self._remote)
        except (OSError, EOFError) as error:
            self._lost = str(error) or "the program ended"
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

    def __call__(self, *arguments: Any, **named: Any) -> Any:
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


# --- The start of either. ---


def limit(cpu_seconds: int, memory: int, processes: int, file_size: int) -> None:
    """Bound this process and its children; `processes` 0 leaves their number alone."""
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if processes:
        limits[resource.RLIMIT_NPROC] = processes
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    with open("/proc/self/oom_score_adj", "w") as score:  # die first where memory is short
        score.write("1000")


def detached_output() -> int:
    """A private copy of standard output, which itself then leads nowhere."""
    private = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return private


def main(job: bytes, socket: int) -> None:
    """Take on the job's limits and play its role; `socket` joins judge and guest."""
    role, limits, largest, *work = decode(job, lambda handle: handle)
    limit(*limits)
    os.environ.clear()
    channel = Channel(socket, largest)
    if role == "judge":
        token, modules, *suite = work
        result = detached_output()
        problems = Judge(channel, modules).problems(*suite)
        os.write(result, encode((token, problems), _handle))
    elif role == "guest":
        Guest(work[0], "solution").serve(channel)
    else:
        Guest(work[0], "__main__").run()
