"""Plain data as bytes, and messages over a socket: what crosses between processes.

Every value is a one-letter tag, a length (4 bytes, big-endian) and its content. Reading makes
numbers, texts, containers and handles, and nothing else, whatever the bytes are: unlike pickle or
marshal it can be used on what a hostile program wrote. It is also handed to bare interpreters (see
`inside`), so it imports next to nothing.
"""

from __future__ import annotations

import posix  # `os` and `typing` would double the time that a bare interpreter takes to start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ATOMS: dict[type, tuple[bytes, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    type(None): (b"N", lambda _: b"", lambda _: None),
    bool: (b"B", lambda value: b"1" if value else b"", bool),
    int: (b"I", lambda value: int.__format__(value, "x").encode(), lambda data: int(data, 16)),
    float: (b"F", lambda value: float.__repr__(value).encode(), float),
    complex: (
        b"C",
        lambda value: complex.__repr__(value).encode(),
        lambda data: complex(data.decode()),
    ),
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


PROGRAM_ENDED = "the program ended"


class MessageSocket:
    """Messages over a socket, each with its length (4 bytes) in front."""

    def __init__(self, descriptor: int, largest: int):
        self._descriptor = descriptor
        self._largest = largest

    def send(self, data: bytes) -> None:
        """Write one message."""
        data = len(data).to_bytes(4, "big") + data
        while data:
            data = data[posix.write(self._descriptor, data) :]

    def receive(self) -> bytes:
        """Read one message. Raises EOFError at the end and OSError when it is too long."""
        length = int.from_bytes(self._exactly(4), "big")
        if length > self._largest:
            posix.close(self._descriptor)
            raise OSError("the answer is too long")
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = posix.read(self._descriptor, count - len(data))
            if not part:
                raise EOFError(PROGRAM_ENDED)
            data += part
        return bytes(data)
