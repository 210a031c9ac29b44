"""A system-call filter for generated programs, on top of what the sandbox hides.

Denied: making namespaces (they open kernel code meant for administrators), looking into other
processes, kernel key rings, BPF, io_uring, and memory that no per-process limit counts. The filter
is a classic BPF program in the form that `bwrap --seccomp` reads: an array of `struct sock_filter`,
as in seccomp(2).
"""

from __future__ import annotations

import errno
import platform
import struct

from layerpick.training.errors import LayerpickError

# Namespaces that `clone` can make: mount, cgroup, UTS, IPC, user, PID, network.
_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x60000000

_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CALL_NUMBER, _CALL_MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


_MACHINES = ("x86_64", "aarch64")
_AUDIT_NUMBERS = (0xC000003E, 0xC00000B7)
_OTHER_CONVENTION = 0x40000000  # x32 programs on x86_64 number their calls from here
_CLONE = (56, 220)
_CLONE3 = 435
_DENIED = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "fsopen": (430, 430),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "request_key": (249, 218),
    "setns": (308, 268),
    "shmget": (29, 194),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
"""Numbers of the denied calls on each of the machines."""


def filter_program() -> bytes:
    """The compiled filter for this machine. Raises LayerpickError where there is none."""
    if platform.machine() not in _MACHINES:
        raise LayerpickError(
            f"The sandbox for generated programs knows {' and '.join(_MACHINES)} machines, not "
            f"{platform.machine()}: use one of these, or pass --unsafe-exec to run programs "
            f"unprotected."
        )
    machine = _MACHINES.index(platform.machine())
    steps = [
        (_LOAD_WORD, 0, 0, _CALL_MACHINE),
        *_unless(_JUMP_EQUAL, _AUDIT_NUMBERS[machine], _KILL),
        (_LOAD_WORD, 0, 0, _CALL_NUMBER),
        *_when(_JUMP_GREATER_EQUAL, _OTHER_CONVENTION, _KILL),
    ]
    for numbers in _DENIED.values():
        steps += _when(_JUMP_EQUAL, numbers[machine], _FAIL | errno.EPERM)
    # Its flags lie in memory, where a filter cannot look; C libraries then fall back to `clone`.
    steps += _when(_JUMP_EQUAL, _CLONE3, _FAIL | errno.ENOSYS)
    steps += _unless(_JUMP_EQUAL, _CLONE[machine], _ALLOW)
    steps.append((_LOAD_WORD, 0, 0, _FIRST_ARGUMENT))
    steps += _when(_JUMP_BITS, _NEW_NAMESPACES, _FAIL | errno.EPERM)
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _when(jump: int, operand: int, answer: int) -> list[tuple[int, int, int, int]]:
    return [(jump, 0, 1, operand), (_RETURN, 0, 0, answer)]


def _unless(jump: int, operand: int, answer: int) -> list[tuple[int, int, int, int]]:
    return [(jump, 1, 0, operand), (_RETURN, 0, 0, answer)]
