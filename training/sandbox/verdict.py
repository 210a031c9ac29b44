"""Programs with tests in, verdicts out."""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial

from layerpick.training.errors import LayerpickError
from layerpick.training.sandbox.assertions import Suite, parse_suite
from layerpick.training.sandbox.jail import Jail, LimitReachedError, Limits, find_bubblewrap, watch
from layerpick.training.sandbox.wire import PROGRAM_ENDED, decode


@dataclass(frozen=True)
class Program:
    """A generated program and what it has to do."""

    code: str
    entry_point: str | None = None
    """The function or class that the tests are about."""
    tests: tuple[str, ...] = ()
    """Python texts with `assert` statements, or with a `check(candidate)` function of them."""
    setup: str = ""
    """Python that the tests need, run on their side: imports and helpers of their own."""
    io: tuple[tuple[str, str], ...] = ()
    """Pairs of standard input and the standard output expected for it."""


@dataclass(frozen=True)
class Verdict:
    """How many tests a program passed."""

    passed: int
    total: int
    reason: str
    """One line for a person: what went wrong first, or that all passed."""


def run_programs(
    programs: Sequence[Program],
    limits: Limits = Limits(),  # noqa: B008 - a frozen value
    *,
    workers: int | None = None,
    unsafe: bool = False,
) -> list[Verdict]:
    """One verdict for each program, several programs at a time.

    By default two more than there are cores, because sandboxes wait for the kernel now and then.
    `unsafe` runs them without a sandbox, with the rights of the caller. Raises LayerpickError if
    there is no sandbox or tests are not Python.
    """
    if not unsafe:
        require_sandbox()
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)) + 2) as pool:
        return list(pool.map(partial(_run, limits=limits, unsafe=unsafe), programs))


def require_sandbox() -> None:
    """Raise LayerpickError, saying what to do, unless programs can be run in a sandbox here."""
    find_bubblewrap()
    problem = _sandbox_problem()
    if problem:
        raise LayerpickError(
            f"Generated programs run in a bubblewrap sandbox, which does not work here "
            f"({problem}): allow unprivileged user namespaces (in a container, start it with "
            f"--privileged), use bubblewrap 0.8 or later, or pass --unsafe-exec to run programs "
            f"unprotected, with all of your own rights."
        )


def sandbox_available() -> bool:
    """Whether programs can be run in a sandbox here."""
    try:
        require_sandbox()
    except LayerpickError:
        return False
    return True


@lru_cache(maxsize=1)
def _sandbox_problem() -> str:
    """Why a program that is known to be right fails in the sandbox; '' if it passes."""
    program = Program("def double(x):\n    return 2 * x", "double", ("assert double(4) == 8",))
    try:
        verdict = _run(program, limits=Limits(), unsafe=False)
    except LayerpickError as error:
        return str(error).rstrip(".")
    return "" if verdict.passed else verdict.reason


def _run(program: Program, limits: Limits, unsafe: bool) -> Verdict:
    suite = _suite(program)
    deadline = time.monotonic() + limits.wall_seconds
    total = suite.total + len(program.io)
    try:
        outcomes = _run_tests(program, suite, limits, unsafe, deadline) if suite.total else []
        for number, (given, expected) in enumerate(program.io, start=1):
            problem = _run_pair(program.code, given, expected, limits, unsafe, deadline)
            outcomes.append((f"input {number}", problem))
    except LimitReachedError as limit:
        return Verdict(0, total, str(limit))
    failed = [f"{test}: {problem}" for test, problem in outcomes if problem]
    passed = total - len(failed)
    return Verdict(passed, total, failed[0] if failed else f"all {total} tests passed")


def _suite(program: Program) -> Suite:
    try:
        return parse_suite(program.setup, program.tests, program.entry_point)
    except (SyntaxError, ValueError) as error:
        raise LayerpickError(
            f"A test of '{program.entry_point}' is not Python: {error}."
        ) from error


def _run_tests(
    program: Program, suite: Suite, limits: Limits, unsafe: bool, deadline: float
) -> list[tuple[str, str]]:
    """Each assertion and its problem, '' where it held."""
    token = secrets.token_bytes(16)
    tests = [(test.source, len(test.assertions)) for test in suite.tests]
    judging = (token, suite.modules, suite.setup, tests, suite.names, program.entry_point)
    guest_end, judge_end = socket.socketpair()
    with ExitStack() as stack:
        with guest_end, judge_end:
            start = partial(Jail, limits=limits, unsafe=unsafe)
            guest = stack.enter_context(start("guest", program.code, channel=guest_end.fileno()))
            judge = stack.enter_context(start("judge", *judging, channel=judge_end.fileno()))
        watch(judge, [guest], limits, deadline)
        judge.exit_code(deadline)
        problems = _signed(judge.output, token, suite.total)
        if problems is None:
            raise LimitReachedError(f"the tests broke off: {judge.last_error_line}")
        if problems[0] == PROGRAM_ENDED:
            watch(guest, [], limits, deadline)
            guest.exit_code(deadline)
            raise LimitReachedError(f"{PROGRAM_ENDED}: {guest.last_error_line}")
    texts = [text for test in suite.tests for text in test.assertions or ("the test",)]
    return list(zip(texts, problems, strict=True))


def _signed(output: bytes, token: bytes, total: int) -> list[str] | None:
    """What the judge wrote, if it is a judgement with the right token."""
    try:
        signature, problems = decode(output, str)
    except (ValueError, TypeError):
        return None
    if not isinstance(signature, bytes) or not hmac.compare_digest(signature, token):
        return None
    return problems if len(problems) == total else None


def _run_pair(
    code: str, given: str, expected: str, limits: Limits, unsafe: bool, deadline: float
) -> str:
    """The problem of one run from standard input to standard output, '' if there is none."""
    stdin = given.encode("utf-8", "surrogatepass")
    with Jail("program", code, limits=limits, unsafe=unsafe, stdin=stdin) as program:
        watch(program, [], limits, deadline)
        exit_code = program.exit_code(deadline)
    if exit_code:
        return program.last_error_line or f"exit code {exit_code}"
    written = program.output.decode("utf-8", "surrogateescape")
    return "" if _lines(written) == _lines(expected) else "wrong output"


def _lines(text: str) -> list[str]:
    """Lines without white space at their ends, nor empty lines at the end of the text."""
    return [line.rstrip() for line in text.rstrip().split("\n")]
