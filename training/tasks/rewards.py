"""Reward functions: a user's own, and checks that hold for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from layerpick.training.errors import LayerpickError
from layerpick.training.own_code import import_file
from layerpick.training.tasks.base import Prompt

RewardFunction = Callable[..., list[float]]


def load_reward(spec: str) -> RewardFunction:
    """Import `file.py:function`.

    Raises LayerpickError if the file or the function is missing or the file does not run.
    """
    file, colon, name = spec.rpartition(":")
    path = Path(file)
    if not (colon and path.suffix == ".py"):
        raise LayerpickError(f"The reward '{spec}' is not of the form file.py:function.")
    function = getattr(import_file(path, "reward"), name, None)
    if not callable(function):
        raise LayerpickError(f"The reward file {path} has no function '{name}'.")
    return function


def call_reward(
    function: RewardFunction, prompts: Sequence[Prompt], completions: Sequence[str]
) -> list[float]:
    """Call a reward with TRL's signature and check what it returns.

    As in TRL, completions of chat prompts are lists with one assistant message. Raises
    LayerpickError if the function raises, or returns the wrong number of values or a value that
    is not a finite number.
    """
    name = getattr(function, "__name__", type(function).__name__)
    keys = {key for prompt in prompts for key in prompt.columns} - {"prompt", "completions"}
    columns = {key: [prompt.columns.get(key) for prompt in prompts] for key in sorted(keys)}
    answers: list[Any] = [
        text if isinstance(prompt.content, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, completions, strict=True)
    ]
    contents = [prompt.content for prompt in prompts]
    try:
        rewards = function(completions=answers, prompts=contents, **columns)
    except (Exception, SystemExit) as error:
        raise LayerpickError(
            f"The reward function '{name}' raised {type(error).__name__}: {error}."
        ) from error
    if not isinstance(rewards, Sequence) or len(rewards) != len(completions):
        got = f"{len(rewards)} values" if isinstance(rewards, Sequence) else type(rewards).__name__
        raise LayerpickError(
            f"The reward function '{name}' returned {got} for {len(completions)} completions; "
            f"it must return a list with one number for each."
        )
    for value, prompt in zip(rewards, prompts, strict=True):
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise LayerpickError(
                f"The reward function '{name}' returned {value!r} for {prompt.source}; "
                f"rewards must be finite numbers."
            )
    return [float(value) for value in rewards]
