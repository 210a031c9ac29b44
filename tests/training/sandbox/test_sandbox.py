"""Honest programs are judged right; nothing runs longer, or sees more, than it may."""

from __future__ import annotations

import ast
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.training.errors import LayerpickError
from layerpick.training.sandbox import (
    Limits,
    Program,
    parse_suite,
    require_sandbox,
    run_programs,
    sandbox_available,
)
from layerpick.training.sandbox import verdict as verdict_module
from layerpick.training.sandbox.jail import Jail, LimitReachedError, watch
from layerpick.training.sandbox.wire import decode, encode

needs_sandbox = pytest.mark.skipif(not sandbox_available(), reason="no bubblewrap here")
SHORT = Limits(wall_seconds=2.0, cpu_seconds=1, memory_bytes=256 * 2**20)


@needs_sandbox
@pytest.mark.parametrize("code", ["while True: pass", "import time\ntime.sleep(1000)"])
def test_a_limit_ends_the_whole_process_tree(
    code: str, sandboxed: Callable[[], set[int]], left_in_sandboxes: Callable[[], set[int]]
) -> None:
    start = time.monotonic()
    with Jail("program", f"import os\nos.fork()\nos.setsid()\n{code}", limits=SHORT) as jail:
        while len(sandboxed()) < 3:
            assert time.monotonic() < start + 5
        with pytest.raises(LimitReachedError):
            watch(jail, [], SHORT, time.monotonic() + 0.1)
    assert left_in_sandboxes() == set()


@needs_sandbox
def test_a_program_sees_the_system_and_python_and_nothing_else() -> None:
    shown = run_alone(
        f"import os, sys\nhome = {str(Path.home())!r}\n"
        "print({'root': os.listdir('/'), 'here': os.listdir('.'), 'path': sys.path,\n"
        "  'home': os.listdir(home) if os.path.exists(home) else [],\n"
        "  'environment': dict(os.environ), 'interfaces': open('/proc/net/dev').read(),\n"
        "  'processes': [name for name in os.listdir('/proc') if name.isdigit()]})"
    )
    parts = Path(sys.base_prefix).resolve().parts
    system = {"bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "tmp", "usr"}
    assert set(shown["root"]) <= system | {parts[1]}
    assert set(shown["home"]) <= set(parts)
    assert shown["here"] == [] and shown["environment"] == {}
    assert shown["processes"] == ["1", "2"]
    assert re.findall(r"(\w+):", shown["interfaces"]) == ["lo"]
    assert not any("site-packages" in path for path in shown["path"])


def run_alone(code: str) -> dict[str, Any]:
    limits = Limits()
    with Jail("program", code, limits=limits) as jail:
        watch(jail, [], limits, time.monotonic() + 5)
        return ast.literal_eval(jail.output.decode())


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "tests", "passed", "problem"),
    [
        ("def f(x): return x", ("assert f(1) == 1", "assert f((1, 2.5)) == (1, 2.5)"), 2, "all"),
        ("def f(x): return x", ("assert f(1) == 2", "assert f(3) == 3"), 1, "f(1) == 2: false"),
        ("def f(x): return 1 / x", ("assert f(0)", "assert f(1) == 1"), 1, "ZeroDivisionError"),
        ("def g(x): return x", ("assert f(1) == 1",), 0, "does not define 'f'"),
        ("def f(x: return", ("assert f(1) == 1",), 0, "SyntaxError"),
        ("raise ValueError('no')\ndef f(x): return 1", ("assert f(1) == 1",), 0, "ValueError: no"),
        ("def f(x): x.sort()", ("y = [2, 1]\nf(y)\nassert y == [1, 2]",), 1, "all"),
        ("def f(x):\n  x.clear()\n  return []", ("y = [2]\nassert f(y) == sorted(y)",), 0, "false"),
        ("def f(x): return map(abs, x)", ("assert list(f([-1])) == [1]",), 1, "all"),
        ("def f(x): return map(abs, x)", ("assert f([-1]) == [1]",), 0, "false"),
        ("def f(x): return {x: {1, 2}}", ("assert f(b'a') == {b'a': {2, 1}}",), 1, "all"),
        (
            "from collections import Counter\ndef f(x): return Counter(x)",
            ("assert f('aab') == {'a': 2, 'b': 1}",),
            1,
            "all",
        ),
        ("def f(x): return 10 ** x", ("assert f(5000) == 10 ** 5000",), 1, "all"),
        ("def f(x): return 1.5", ("assert math.isclose(f(0), 1.5)",), 1, "all"),
        ("def f(): pass", ("try:\n  f()\n  assert False\nexcept KeyError: pass",), 0, "Assertion"),
        (
            "def f(): raise KeyError",
            ("try:\n  f()\n  assert False\nexcept KeyError: pass",),
            1,
            "all",
        ),
        ("def f(): return []", ("for x in f(): assert x == 1",), 0, "not reached"),
        (
            "import sys\ndef f(x): return x if x else sys.exit()",
            ("assert f(1) == 1", "assert f(0) == 0", "assert f(2) == 2"),
            2,
            "SystemExit",
        ),
        (
            "import os\ndef f(x): return x if x else os._exit(0)",
            ("assert f(1) == 1", "assert f(0) == 0"),
            0,
            "the program ended",
        ),
    ],
)
def test_verdicts(code: str, tests: tuple[str, ...], passed: int, problem: str) -> None:
    entry_point = "f"
    (verdict,) = run_programs([Program(code, entry_point, tests)])
    assert (verdict.passed, verdict.total) == (passed, len(tests)), verdict
    assert problem in verdict.reason


@needs_sandbox
def test_objects_of_the_program_can_be_used_but_its_helpers_decide_nothing() -> None:
    stack = "class Stack(list):\n  push = list.append\n  top = property(lambda self: self[-1])"
    node = "class Node:\n  def __init__(self, v): self.v, self.next = v, None\n"
    node += "def length(node): return 1 + length(node.next) if node else 0\n"
    linked = "a = Node(1)\na.next = Node(2)"
    cheat = "def helper(*a): return True\nsame = helper\ndef f(x): return 0"
    verdicts = run_programs(
        [
            Program(
                stack,
                "Stack",
                ("s = Stack()\ns.push(3)\ns.push(4)\nassert s.top == 4", "assert s.pop() == 4"),
            ),
            Program(node, "length", ("assert length(a) == 2",), setup=linked),
            Program(
                cheat,
                "f",
                ("assert same(f(1), 2)", "assert helper() == True", "assert [*helper()]"),
            ),
            Program(cheat, "f", ("assert helper(f(1))",), setup="def helper(x): return x == 1"),
        ]
    )
    assert [verdict.passed for verdict in verdicts] == [2, 1, 0, 0]


@needs_sandbox
def test_pairs_of_standard_input_and_output() -> None:
    double = "import sys\nfor line in sys.stdin: print(2 * int(line), end='  \\n\\n')"
    programs = [
        Program("print(2 * int(input()))", io=(("4\n", "8\n"), ("5", "10"), ("1", "3"))),
        Program(double, io=(("1\n2\n", "2\n\n4"),)),
        Program("import sys\nprint(8)\nsys.exit(1)", io=(("4", "8"),)),
        Program("import os\nprint(8, flush=True)\nos.kill(os.getpid(), 9)", io=(("4", "8"),)),
        Program("import os\nos.write(1, b'\\xff')", io=(("", "\ufffd"),)),
        Program("if __name__ == '__main__': print(open('/dev/stdin').read())", io=(("é", "é"),)),
        Program("while True: print(8)", io=(("4", "8"),)),
    ]
    verdicts = run_programs(programs)
    assert [verdict.passed for verdict in verdicts] == [2, 1, 0, 0, 0, 1, 0]
    assert verdicts[0].reason == "input 3: wrong output"
    assert "wrote more than" in verdicts[-1].reason


def test_without_a_sandbox_programs_are_refused_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = Program("def f(): return 1", "f", ("assert f() == 1",))
    loop = Program("while True: pass", "f", ("assert f() == 1",))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LayerpickError, match=r"install bubblewrap.*--unsafe-exec"):
        run_programs([program])
    assert not sandbox_available()
    limits = Limits(wall_seconds=1)
    right, endless = run_programs([program, loop], limits, unsafe=True)
    assert (right.passed, endless.passed) == (1, 0)
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to make a namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    verdict_module._sandbox_problem.cache_clear()
    with pytest.raises(LayerpickError, match=r"No permissions to make a namespace.*--unsafe-exec"):
        require_sandbox()
    verdict_module._sandbox_problem.cache_clear()


def test_tests_that_are_not_python_are_named() -> None:
    with pytest.raises(LayerpickError, match="test of 'f' is not Python"):
        run_programs([Program("", "f", ("assert f(1) ==",))], unsafe=True)


def test_assertions_are_counted_and_names_found() -> None:
    suite = parse_suite(
        "import copy\ndef helper(x): return x",
        (
            "assert f(1) == helper(2), 'message'",
            "def check(candidate):\n  for x in [1]:\n    assert candidate(x) == math.pi\n"
            "  assert True\n  assert g",
        ),
        "f",
    )
    assert [test.assertions for test in suite.tests] == [
        ("assert f(1) == helper(2)",),
        ("assert candidate(x) == math.pi", "assert g"),
    ]
    assert (suite.total, suite.names, suite.modules) == (3, ("f", "g"), ("math",))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
    | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9)),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers() | st.text())
        | st.sets(st.binary())
    ),
)


@given(plain)
def test_plain_data_crosses_unchanged(value: object) -> None:
    crossed = decode(encode(value, lambda _: pytest.fail("not plain")), lambda _: None)
    assert crossed == value and repr(type(crossed)) == repr(type(value))


@given(st.binary(max_size=60))
def test_any_bytes_decode_to_plain_data_or_an_error(data: bytes) -> None:
    try:
        value = decode(data, lambda handle: ("handle", handle))
    except (ValueError, TypeError, KeyError):
        return
    encode(value, lambda _: pytest.fail("not plain"))
