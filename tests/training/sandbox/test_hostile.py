"""Hostile programs win nothing, leave nothing, and stay within their bounds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from layerpick.training import errors, sandbox
from layerpick.training.sandbox import Limits, Program, Verdict, run_programs, sandbox_available

needs_sandbox = pytest.mark.skipif(not sandbox_available(), reason="no bubblewrap here")
SHORT = Limits(wall_seconds=2.0, cpu_seconds=1, memory_bytes=256 * 2**20)
LONG = Limits(wall_seconds=20.0, cpu_seconds=10, memory_bytes=256 * 2**20)
SMALL = Limits(memory_bytes=128 * 2**20)
ANSWER = f"answer{secrets.token_hex(16)}"
"""What the tests expect: nobody can guess it, so whoever returns it has read it somewhere."""
TESTS = (
    f"assert f(1) == {ANSWER!r}",
    f"def check(candidate):\n    given = [3]\n"
    f"    assert all(map(lambda x: candidate(x) == {ANSWER!r}, [4, 5]))\n"
    f"    assert candidate(given) == [{ANSWER!r}, *given]",
)
HONEST = Program("def f(x): return x + 1", "f", ("assert f(1) == 2", "assert f(2) == 3"))
PLACEHOLDERS = re.compile(r"\$(SECRET|FOLDER|HOME|MARKER|PID)")
ORDINARY_USER = "61000"


def hostile(kind: str, folder: Path, marker: str = "") -> dict[str, Program]:
    """Programs of a kind by name, after a secret of theirs to find."""
    (folder / "secret").write_text(ANSWER)
    values = {"SECRET": str(folder / "secret"), "FOLDER": str(folder), "HOME": str(Path.home())}
    all_values: dict[str, object] = {**values, "MARKER": marker, "PID": os.getpid()}
    text = Path(__file__).with_name("hostile_programs.txt").read_text(encoding="utf-8")
    parts = re.split(r"^#### (.+)\n", text, flags=re.MULTILINE)
    codes = dict(zip(parts[1::2], parts[2::2], strict=True))
    codes |= {"ends: a null": "def f(x): return 'x\0'", "ends: a surrogate": "f = '\ud800'"}
    return {
        name: Program(PLACEHOLDERS.sub(lambda match: repr(all_values[match[1]]), code), "f", TESTS)
        for name, code in codes.items()
        if name.startswith(kind)
    }


@needs_sandbox
@pytest.mark.parametrize(
    ("kind", "limits", "at_least"),
    [("stopped", SHORT, 22), ("ends", LONG, 120), ("either", SHORT, 12)],
)
def test_hostile_programs_win_nothing_and_leave_nothing(
    kind: str,
    limits: Limits,
    at_least: int,
    tmp_path: Path,
    left_in_sandboxes: Callable[[], set[int]],
) -> None:
    marker = f"layerpick-{secrets.token_hex(8)}"
    programs = hostile(kind, tmp_path, marker)
    assert len(programs) >= at_least

    verdicts = run_programs(list(programs.values()), limits, workers=6)

    for name, verdict in zip(programs, verdicts, strict=True):
        assert (verdict.passed, verdict.total) == (0, 3), (name, verdict)
        assert kind != "ends" or "did not end" not in verdict.reason, (name, verdict)
    assert left_in_sandboxes() == set()
    assert (tmp_path / "secret").read_text() == ANSWER
    assert {path.name for path in tmp_path.iterdir()} == {"secret"}
    for folder in (Path.home(), Path("/"), Path("/usr"), Path("/tmp"), Path("/dev/shm"), Path()):
        assert not (folder / marker).exists()
    assert run_programs([HONEST] * 2, limits) == [Verdict(2, 2, "all 2 tests passed")] * 2


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "what_happens"),
    [
        ("import socket\nsocket.socket(40, socket.SOCK_STREAM)", "Function not implemented"),
        ("import socket\nsocket.socket()", "Function not implemented"),
        ("open('/proc/self/oom_score_adj', 'w').write('0')", "Read-only file system"),
        ("import fcntl\nfcntl.lockf(open('/tmp/x', 'w'), fcntl.LOCK_EX)", "not permitted"),
        ("import os\nfor i in range(10**7): open(f'/tmp/{i}', 'w').close()", "more than 500 files"),
        (
            "import os\nos.closerange(0, 3)\nfor i in range(10**7): open(f'/tmp/{i}', 'w').close()",
            "more than 500 files",
        ),
        ("import os\nos.setxattr('/tmp', 'user.x', b'x')", "Function not implemented"),
        (
            "import ctypes\nlibc = ctypes.CDLL(None)\nassert libc.semget(0, 9, 0o1600) >= 0",
            "AssertionError",
        ),
    ],
)
def test_what_no_limit_would_count_is_refused(code: str, what_happens: str) -> None:
    (verdict,) = run_programs([Program(code, io=(("", ""),))])
    assert verdict.passed == 0 and what_happens in verdict.reason


LIBRARY = Path(__file__).with_name("honest_program.txt").read_text(encoding="utf-8")


@needs_sandbox
@pytest.mark.parametrize("user", ["caller", "ordinary user"])
def test_honest_use_of_the_standard_library_is_let_through(user: str) -> None:
    with worker(user) as run:
        limits = Limits(wall_seconds=60, cpu_seconds=30)  # it takes a second
        verdict, _ = run(Program(LIBRARY, io=(("1\n", "done"),)), limits, None)
    assert verdict.reason == "all 1 tests passed"


@pytest.mark.slow
@needs_sandbox
def test_honest_use_of_the_standard_library_is_let_through_on_other_pythons() -> None:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    minors = range(11, 20)
    paths = [path for minor in minors for path in root.glob(f"3.{minor}.*/bin/python3")]
    paths += [path for minor in minors if (path := Path(f"/usr/bin/python3.{minor}")).exists()]
    for path in paths:
        with worker("caller", str(path)) as run:
            verdict, _ = run(Program(LIBRARY, io=(("1\n", "done"),)), Limits(), None)
        print(path, verdict.reason)
        assert verdict.passed == 1, (path, verdict)


@pytest.mark.slow
@needs_sandbox
@pytest.mark.parametrize("user", ["caller", "ordinary user"])
def test_each_hostile_program_stays_within_its_bounds_of_time_and_memory(
    user: str, tmp_path: Path
) -> None:
    """Memory includes the kernel's, where control groups can be made to count it."""
    bound = (SMALL.processes + 2) * SMALL.memory_bytes + SMALL.file_bytes
    most_memory, most_late = 0, 0.0
    with worker(user) as run:
        for name, program in hostile("", tmp_path).items():
            with memory_group() as group:
                verdict, seconds = run(program, SMALL, group)
                memory = group.most() if group else 0
            assert verdict.passed == 0, (name, verdict)
            late = seconds - SMALL.wall_seconds
            print(f"{name}: {seconds:.1f} s, {memory / 2**20:.0f} MB: {verdict.reason}")
            assert late < 1, name
            assert memory < bound, name
            most_memory, most_late = max(most_memory, memory), max(most_late, late)
    print(
        f"at most {most_memory / 2**20:.0f} MB (bound {bound / 2**20:.0f}), {most_late:.2f} s late"
    )


WORKER = """
import json, sys, time
from layerpick.training.sandbox import Limits, Program, require_sandbox, run_programs
job = json.loads(sys.stdin.read())
program = job["program"]
program |= {"tests": tuple(program["tests"]), "io": tuple(map(tuple, program["io"]))}
require_sandbox()
start = time.monotonic()
(verdict,) = run_programs([Program(**program)], Limits(**job["limits"]))
print(json.dumps([verdict.passed, verdict.total, verdict.reason, time.monotonic() - start]))
"""
Run = Callable[[Program, Limits, "MemoryGroup | None"], tuple[Verdict, float]]


@contextlib.contextmanager
def worker(user: str, python: str = "") -> Iterator[Run]:
    """Runs a program in a process of its own, as the caller or as an ordinary user."""
    start: list[str] = []
    if user == "ordinary user":
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            pytest.skip("only root can become an ordinary user")
        start = ["setpriv", "--reuid", ORDINARY_USER, "--regid", ORDINARY_USER, "--clear-groups"]
        jail = ["bwrap", "--unshare-user", "--ro-bind", "/", "/", "true"]
        if subprocess.run([*start, *jail], capture_output=True, check=False).returncode:
            pytest.skip("ordinary users may make no user namespaces here")
        python = python or readable_python()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        package = Path(folder, "layerpick/training")
        package.mkdir(parents=True)
        (package.parent / "__init__.py").touch()
        (package / "__init__.py").touch()
        shutil.copy(str(errors.__file__), package)
        shutil.copytree(Path(str(sandbox.__file__)).parent, package / "sandbox")
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)

        def run(
            program: Program, limits: Limits, group: MemoryGroup | None
        ) -> tuple[Verdict, float]:
            joined = "" if group is None else f"echo $$ > {group.folder}/cgroup.procs; "
            command = ["/bin/sh", "-c", f'{joined}exec "$@"', "sh", *start]
            done = subprocess.run(
                [*command, python or sys.executable, "-c", WORKER],
                input=json.dumps({"program": asdict(program), "limits": asdict(limits)}),
                env={"PYTHONPATH": folder, "PATH": os.environ["PATH"]},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            passed, total, reason, seconds = json.loads(done.stdout)
            return Verdict(passed, total, reason), seconds

        yield run


def readable_python() -> str:
    """A Python that an ordinary user can start."""
    for path in map(Path, (f"/usr/bin/python3.{minor}" for minor in range(11, 20))):
        if path.exists():
            return str(path)
    pytest.skip("no Python that an ordinary user can start")


class MemoryGroup:
    """A control group, which counts the memory of its processes and the kernel's for them."""

    def __init__(self, folder: Path, file: str):
        self.folder = folder
        self._file = file

    def most(self) -> int:
        """The most bytes at a time."""
        return int((self.folder / self._file).read_text())


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup | None]:
    """A new group, of control groups' second version or first; None where none can be made."""
    name = f"layerpick-{secrets.token_hex(4)}"
    for parent, file in (("", "memory.peak"), ("memory", "memory.max_usage_in_bytes")):
        folder = Path("/sys/fs/cgroup", parent, name)
        with contextlib.suppress(OSError):
            folder.mkdir()
            if (folder / file).exists():
                break
            folder.rmdir()
    else:
        yield None
        return
    try:
        yield MemoryGroup(folder, file)
    finally:
        end = time.monotonic() + 5
        while folder.exists() and time.monotonic() < end:
            with contextlib.suppress(OSError):
                folder.rmdir()
            time.sleep(0.05)
