"""One process under limits, in a bubblewrap sandbox of its own, and what it writes.

The sandbox is made of namespaces (processes, network, mounts, IPC, host name, users), a read-only
view of `/usr` and the Python installation and nothing else, a small writable `/tmp` that goes away
with it, no environment, no capabilities, and the system-call filter of `seccomp`. When bubblewrap
is killed, the kernel kills every process in its sandbox.

Run by root, bubblewrap makes no user namespace; the process takes an unused user's identity
instead, because Linux exempts root's processes from the limit on their number, whatever a user
namespace calls them.
"""

from __future__ import annotations

import ctypes
import json
import marshal
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Self

from layerpick.training.errors import LayerpickError
from layerpick.training.sandbox.seccomp import filter_program
from layerpick.training.sandbox.wire import encode

_PYTHON = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
_START = (
    "import marshal, sys\n"
    "with open(int(sys.argv[1]), 'rb') as job:\n"
    "    exec(marshal.load(job))\n"
    "    exec(marshal.load(job))\n"
    "    work = job.read()\n"
    "main(work, int(sys.argv[2]))"
)
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # the same program does the same thing every time
_NOBODY = "65534"
_SET_CHILD_SUBREAPER = 36  # prctl(2)
_UNUSED_USERS = range(61184, 65520)  # systemd keeps them free for short-lived services
_FIRST_TO_DIE = ("/bin/sh", "-c", 'echo 1000 >/proc/self/oom_score_adj; exec "$@"', "sh")
"""Where memory is short; inside the sandbox `/proc` is read-only, so nothing can take it back."""
_LOOK_SECONDS = 0.05
"""How often the files of a sandbox are counted."""


@dataclass(frozen=True)
class Limits:
    """What a program may use; reaching a limit ends it."""

    wall_seconds: float = 5.0
    """For all of its tests together."""
    cpu_seconds: int = 4
    """For each of its processes."""
    memory_bytes: int = 512 * 2**20
    """Address space of each of its processes."""
    processes: int = 4
    """Processes and threads at a time."""
    file_bytes: int = 16 * 2**20
    """A file, and all of its files together."""
    files: int = 500
    """Names in its `/tmp` at a time: each takes about 1 kB of the kernel's memory."""
    output_bytes: int = 2**20
    """What it writes to standard output or error, and each value that it returns."""


class LimitReachedError(Exception):
    """A program was stopped at a limit."""


class Jail:
    """A running process; a context manager that kills it and whatever it started."""

    def __init__(
        self,
        role: str,
        *work: object,
        limits: Limits,
        unsafe: bool = False,
        channel: int | None = None,
        stdin: bytes = b"",
    ):
        self._unsafe = unsafe
        self._limits = limits
        with ExitStack() as stack:
            job = _memory_file(_inside() + _job(role, work, limits, unsafe), stack)
            self._status = _memory_file(b"", stack)
            inherited = [job, self._status, *([] if channel is None else [channel])]
            command = [str(_PYTHON), "-s", "-P", "-S", "-B", "-X", "utf8", "-c", _START]
            command += [str(job), str(-1 if channel is None else channel)]
            folder = "/"
            if unsafe:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
            else:
                _adopt_orphans()
                inherited.append(_memory_file(filter_program(), stack))
                command = _sandboxed(command, limits, self._status, inherited[-1])
            self._process = subprocess.Popen(
                [*_FIRST_TO_DIE, *command],
                stdin=_memory_file(stdin, stack),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=_ENVIRONMENT if unsafe else {},
                pass_fds=inherited,
                start_new_session=True,
            )
            self._resources = stack.pop_all()
        assert self._process.stdout is not None and self._process.stderr is not None
        self.streams: tuple[IO[bytes], IO[bytes]] = (self._process.stdout, self._process.stderr)
        self.written: dict[IO[bytes], bytearray] = {stream: bytearray() for stream in self.streams}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            if self._unsafe:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        with suppress(ValueError, ChildProcessError):  # the sandbox was never made, or is gone
            first_process = self._first_process()
            if os.waitpid(first_process, os.WNOHANG) == (0, 0):
                os.kill(first_process, signal.SIGKILL)
                os.waitpid(first_process, 0)
        for stream in self.streams:
            stream.close()
        self._resources.close()

    @property
    def _report(self) -> bytes:
        """What bubblewrap says of the sandbox: lines of JSON, the process first, its exit last."""
        return os.pread(self._status, 4096, 0)

    def _first_process(self) -> int:
        """Of the sandbox, as seen from here. Raises ValueError if it was not made."""
        return json.loads(self._report.partition(b"\n")[0])["child-pid"]

    def check_files(self) -> None:
        """Raise LimitReachedError if the sandbox holds too many files.

        Their number cannot be bounded otherwise: bubblewrap bounds only what is in them.
        """
        if self._unsafe:
            return
        with suppress(ValueError, OSError):  # the sandbox is not made yet, or is gone
            folder = os.statvfs(f"/proc/{self._first_process()}/root/tmp")
            ours = folder.f_blocks * folder.f_frsize == self._limits.file_bytes
            if ours and folder.f_files - folder.f_ffree > self._limits.files:
                raise LimitReachedError(f"made more than {self._limits.files} files")

    @property
    def output(self) -> bytes:
        """Standard output so far."""
        return bytes(self.written[self.streams[0]])

    @property
    def last_error_line(self) -> str:
        """The end of standard error, for a person."""
        lines = self.written[self.streams[1]].decode("utf-8", "replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")

    def exit_code(self, deadline: float) -> int:
        """The exit code of the process, once it has ended.

        Raises LimitReachedError if it does not end in time, and LayerpickError if it ended because
        its sandbox could not be made.
        """
        while True:
            remaining = max(deadline - time.monotonic(), 0)
            try:
                code = self._process.wait(min(remaining, _LOOK_SECONDS))
                break
            except subprocess.TimeoutExpired:
                if not remaining:
                    raise LimitReachedError("closed its output and did not end in time") from None
            self.check_files()
        # bubblewrap reports an exit code only once the command itself has started.
        if code > 0 and not self._unsafe and b"exit-code" not in self._report:
            raise LayerpickError(f"The sandbox could not be made: {self.last_error_line}.")
        return code


def watch(leader: Jail, others: Iterable[Jail], limits: Limits, deadline: float) -> None:
    """Collect what all write until `leader` closes its output.

    `deadline` is a time of `time.monotonic`. Raises LimitReachedError when it has passed, when too
    much was written or too many files were made.
    """
    waiting = set(leader.streams)
    jails = (leader, *others)
    looked = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for jail in jails:
            for stream in jail.streams:
                selector.register(stream, selectors.EVENT_READ, jail.written[stream])
        while waiting:
            now = time.monotonic()
            if now >= deadline:
                raise LimitReachedError(f"did not end within {limits.wall_seconds:g} seconds")
            if now >= looked + _LOOK_SECONDS:
                looked = now
                for jail in jails:
                    jail.check_files()
            for key, _ in selector.select(min(deadline - now, _LOOK_SECONDS)):
                data = os.read(key.fd, 65536)
                key.data.extend(data)
                if not data:
                    selector.unregister(key.fileobj)
                    waiting -= {key.fileobj}
                if len(key.data) > limits.output_bytes:
                    raise LimitReachedError(f"wrote more than {limits.output_bytes} bytes")


def find_bubblewrap() -> str:
    """Path of bwrap. Raises LayerpickError if it is not installed."""
    path = shutil.which("bwrap")
    if path is None:
        raise LayerpickError(
            "Generated programs run in a bubblewrap sandbox, and 'bwrap' is not installed: install "
            "it (sudo apt-get install bubblewrap, or sudo dnf install bubblewrap), or pass "
            "--unsafe-exec to run them unprotected, with all of your own rights."
        )
    return path


def _sandboxed(command: list[str], limits: Limits, status: int, filter_: int) -> list[str]:
    as_root = os.geteuid() == 0
    options = "--unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try"
    options += f" --die-with-parent --new-session --clearenv --seccomp {filter_}"
    options += f" --json-status-fd {status} --cap-drop ALL"
    for name, value in _ENVIRONMENT.items():
        options += f" --setenv {name} {value}"
    if as_root:
        options += " --cap-add CAP_SETUID --cap-add CAP_SETGID"
        user = str(secrets.choice(_UNUSED_USERS))
        command = [
            *("setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all"),
            *command,
        ]
    else:
        options += f" --unshare-user --uid {_NOBODY} --gid {_NOBODY}"
    size = str(limits.file_bytes)
    return [
        find_bubblewrap(),
        *options.split(),
        *_system_view(),
        # Process 1 is bubblewrap's own, which ends the sandbox: no program may look into it.
        *("--proc", "/proc", "--size", "4096", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1"),
        *("--remount-ro", "/proc"),
        *("--dev", "/dev", "--remount-ro", "/dev"),
        *("--perms", "1777", "--size", size, "--tmpfs", "/tmp", "--remount-ro", "/"),
        *("--chdir", "/tmp", "--", *command),
    ]


@lru_cache(maxsize=1)
def _system_view() -> tuple[str, ...]:
    """Options that show the system's programs and this Python, read-only, and nothing else."""
    view = ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64")):
        if path.is_symlink():
            view += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            view += ["--ro-bind", str(path), str(path)]
    prefix = Path(sys.base_prefix).resolve()
    if not prefix.is_relative_to("/usr"):
        for parent in list(reversed(prefix.parents))[1:]:
            view += ["--perms", "0755", "--dir", str(parent)]
        view += ["--ro-bind", str(prefix), str(prefix)]
    return tuple(view)


@lru_cache(maxsize=1)
def _adopt_orphans() -> None:
    """Become the parent of a sandbox's first process when bubblewrap, its parent, has ended.

    It can then be waited for here; the first process of a container often does not do that.
    """
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@lru_cache(maxsize=1)
def _inside() -> bytes:
    """The compiled `wire` and `inside`; only the Python that the sandbox shows can read them."""
    files = [Path(__file__).with_name(name) for name in ("wire.py", "inside.py")]
    codes = [compile(file.read_text(encoding="utf-8"), file.name, "exec") for file in files]
    return b"".join(map(marshal.dumps, codes))


def _job(role: str, work: tuple[object, ...], limits: Limits, unsafe: bool) -> bytes:
    # Outside a sandbox the number of processes is counted for the whole user, so it has no limit;
    # inside, bubblewrap's own first process counts too, unless it is root's.
    processes = 0 if unsafe else limits.processes + (os.geteuid() != 0)
    bounds = (limits.cpu_seconds, limits.memory_bytes, processes, limits.file_bytes)
    return encode((role, bounds, limits.output_bytes, *work), _refuse)


def _refuse(value: object) -> int:
    raise TypeError(f"a {type(value).__name__} cannot be part of a job")


def _memory_file(content: bytes, stack: ExitStack) -> int:
    descriptor = os.memfd_create("layerpick")
    stack.callback(os.close, descriptor)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
