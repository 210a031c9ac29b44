"""Tests as data: which assertions a test makes, and which names of the program it uses.

Every `assert` statement counts as one test. It passes if it is reached and never fails, and the
tests after a failed one still run, so that a program earns the share of the tests it passes.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Test:
    """One source text of tests, rewritten so that its assertions report instead of raising."""

    source: str
    assertions: tuple[str, ...]
    """The assertions, in order, as a person wrote them."""

    @property
    def count(self) -> int:
        """How many tests it counts as; a text without assertions has to run to its end."""
        return max(len(self.assertions), 1)


@dataclass(frozen=True)
class Suite:
    """All tests of a program."""

    setup: str
    tests: tuple[Test, ...]
    modules: tuple[str, ...]
    """Modules of the standard library that the tests use without importing them."""
    names: tuple[str, ...]
    """Other names that the tests use and do not define: the program has to."""

    @property
    def total(self) -> int:
        """The number of tests."""
        return sum(test.count for test in self.tests)


@lru_cache(maxsize=4096)
def parse_suite(setup: str, tests: tuple[str, ...], entry_point: str | None) -> Suite:
    """Rewrite tests; a `check` function, as HumanEval has, is called with the entry point.

    Raises SyntaxError or ValueError if the setup or a test is not Python.
    """
    trees = [ast.parse(test) for test in tests]
    for tree in trees:
        if entry_point and _lacks_call_of_check(tree):
            tree.body += ast.parse(f"check({entry_point})").body
    free = _free_names([ast.parse(setup), *trees])
    modules = free & sys.stdlib_module_names - {entry_point}
    rewritten = tuple(_rewrite(tree) for tree in trees)
    return Suite(setup, rewritten, tuple(sorted(modules)), tuple(sorted(free - modules)))


def called_functions(tests: Sequence[str]) -> list[str]:
    """Functions that the tests call and do not define, outermost calls of the first test first."""
    trees = [ast.parse(test) for test in tests]
    free = _free_names(trees)
    calls = (node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = [function.id for function in calls if isinstance(function, ast.Name)]
    return [name for name in dict.fromkeys(names) if name in free]


def _rewrite(tree: ast.Module) -> Test:
    rewriter = _AssertionRewriter()
    source = ast.unparse(ast.fix_missing_locations(rewriter.visit(tree)))
    return Test(source, tuple(rewriter.assertions))


class _AssertionRewriter(ast.NodeTransformer):
    """Turns `assert x` into a report of x. `assert True` tells nothing and is left out."""

    def __init__(self) -> None:
        self.assertions: list[str] = []

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if isinstance(node.test, ast.Constant):
            return ast.Pass() if node.test.value else node
        index = len(self.assertions)
        self.assertions.append(ast.unparse(ast.Assert(node.test)))
        report = ast.parse(
            f"try:\n    __record__({index}, None)\n"
            f"except Exception as __error__:\n    __record__({index}, False, __error__)"
        ).body[0]
        assert isinstance(report, ast.Try) and isinstance(report.body[0], ast.Expr)
        assert isinstance(report.body[0].value, ast.Call)
        report.body[0].value.args[1] = node.test
        return report


def _lacks_call_of_check(tree: ast.Module) -> bool:
    defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    return defined and "check" not in {node.id for node in ast.walk(tree) if type(node) is ast.Name}


def _free_names(trees: Sequence[ast.AST]) -> set[str]:
    """Names that are read somewhere and bound nowhere in the trees, nor built in."""
    read: set[str] = set()
    bound = set(dir(builtins))
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return read - bound
