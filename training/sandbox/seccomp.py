"""A system-call filter for generated programs, on top of what the sandbox hides.

Only the calls listed in `system_calls` are let through; any other fails as on a kernel that does
not have it, which is what C libraries and Python know how to handle. The filter is a classic BPF
program in the form that `bwrap --seccomp` reads: an array of `struct sock_filter`, as in
seccomp(2).
"""

from __future__ import annotations

import errno
import platform
import struct

from layerpick.training.errors import LayerpickError
from layerpick.training.sandbox.system_calls import ALLOWED, ALLOWED_WITH, CLONE

# Namespaces that `clone` can make: mount, cgroup, UTS, IPC, user, PID, network.
_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x60000000

_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CALL_NUMBER, _CALL_MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


_MACHINES = ("x86_64", "aarch64")
_AUDIT_NUMBERS = (0xC000003E, 0xC00000B7)
_OTHER_CONVENTION = 0x40000000  # x32 programs on x86_64 number their calls from here

_Step = tuple[int, int, int, int]
"""Operation, steps to skip if true and if false, operand."""


def filter_program() -> bytes:
    """The compiled filter for this machine. Raises LayerpickError where there is none."""
    if platform.machine() not in _MACHINES:
        raise LayerpickError(
            f"The sandbox for generated programs knows {' and '.join(_MACHINES)} machines, not "
            f"{platform.machine()}: use one of these, or pass --unsafe-exec to run programs "
            f"unprotected."
        )
    machine = _MACHINES.index(platform.machine())
    steps: list[_Step] = [
        (_LOAD_WORD, 0, 0, _CALL_MACHINE),
        *_unless(_JUMP_EQUAL, _AUDIT_NUMBERS[machine], _KILL),
        (_LOAD_WORD, 0, 0, _CALL_NUMBER),
        *_when(_JUMP_GREATER_EQUAL, _OTHER_CONVENTION, _KILL),
    ]
    for numbers in ALLOWED.values():
        number = numbers[machine]
        if number is not None:
            steps += _when(_JUMP_EQUAL, number, _ALLOW)
    for numbers_with, argument, values in ALLOWED_WITH.values():
        right = [step for value in values for step in _when(_JUMP_EQUAL, value, _ALLOW)]
        steps += _for_call(numbers_with[machine], argument, right)
    flags = [*_when(_JUMP_BITS, _NEW_NAMESPACES, _FAIL | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    steps += _for_call(CLONE[machine], 0, flags)
    steps.append((_RETURN, 0, 0, _FAIL | errno.ENOSYS))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _for_call(number: int, argument: int, checks: list[_Step]) -> list[_Step]:
    """Steps for one call that look at an argument (its lower half) and refuse what is left."""
    body: list[_Step] = [
        (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT + 8 * argument),
        *checks,
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
    ]
    return [(_JUMP_EQUAL, 0, len(body), number), *body]


def _when(jump: int, operand: int, answer: int) -> list[_Step]:
    return [(jump, 0, 1, operand), (_RETURN, 0, 0, answer)]


def _unless(jump: int, operand: int, answer: int) -> list[_Step]:
    return [(jump, 1, 0, operand), (_RETURN, 0, 0, answer)]
