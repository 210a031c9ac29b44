"""Math: questions with one right final answer, judged by math-verify.

Limits: only the final answer counts, not the way to it; an answer that math-verify cannot read
counts as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.answers import canonical_answer, is_correct, readable_answer
from layerpick.training.tasks.base import Prompt, SingleTurnTask, Split
from layerpick.training.tasks.rewards import call_reward, load_reward
from layerpick.training.tasks.rows import Row, RowSource, as_prompts, asked, open_rows

DEFAULT_DATASET = "openai/gsm8k"
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)")
"""Digits in groups of three, as 1,234."""


class MathTask(SingleTurnTask):
    """Math questions; reward 1 for the right final answer, else 0."""

    name = "math"
    max_new_tokens = 512
    max_chat_tokens = 1024
    conversational = True
    instruction = r"Please reason step by step, and put your final answer within \boxed{}."
    plain_form = "Question: {prompt}\n{instruction}\nAnswer:"
    plain_stop = ("Question:",)

    def prompts(self, split: Split, count: int, seed: int) -> tuple[Prompt, ...]:
        """Rows with a `prompt` (or `question`, `problem`) and an `answer`, or SVAMP's."""
        return as_prompts(self._rows.draw(split, count, seed), _prompt)

    def rewards(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """1.0 or 0.0 by `is_correct`, or whatever the user's own reward function says."""
        if self._own_reward is not None:
            return call_reward(self._own_reward, prompts, completions)
        return [
            float(is_correct(completion, str(prompt.columns["answer"])))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def answer(self, prompt: Prompt, completion: str) -> str | None:  # noqa: ARG002
        """The final answer as math-verify reads it."""
        return readable_answer(completion)

    def final_answer(self, completion: str) -> str:
        """The number, or the expression as math-verify reads it, else the text."""
        return canonical_answer(completion)

    @property
    def source(self) -> str:
        """The data set's name."""
        return self.settings.dataset or DEFAULT_DATASET

    def fingerprint(self) -> str:
        """Identity of the rows."""
        return self._rows.fingerprint()

    @cached_property
    def _rows(self) -> RowSource:
        return open_rows(self.source)

    @cached_property
    def _own_reward(self) -> Any:
        return load_reward(self.settings.reward) if self.settings.reward else None


def _prompt(row: Row) -> Prompt:
    columns = dict(row.columns)
    columns["prompt"] = asked(columns, ("prompt", "question", "problem"))
    if "answer" not in columns:  # SVAMP's
        columns["answer"] = columns.get("Answer")
    for name in ("prompt", "answer"):
        if columns.get(name) in (None, "", []):
            raise LayerpickError(
                f"{row.source} has no '{name}' (its columns: {', '.join(row.columns)}); math rows "
                f"need a prompt (or question) and an answer."
            )
    columns["answer"] = _gold(columns["answer"])
    content = columns["prompt"]
    if isinstance(content, str):
        if not content.strip():
            raise LayerpickError(f"{row.source} has an empty prompt.")
        return Prompt(content, columns, row.source)
    return Prompt(_messages(content, row.source), columns, row.source)


def _gold(answer: Any) -> str:
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    text = str(answer).rpartition("####")[2].strip()
    return text.replace(",", "") if _GROUPED.fullmatch(text.lstrip("-+$")) else text


def _messages(content: Any, source: str) -> tuple[dict[str, str], ...]:
    is_chat = isinstance(content, Sequence) and all(
        isinstance(message, dict) and {"role", "content"} <= message.keys() for message in content
    )
    if not is_chat:
        raise LayerpickError(
            f"{source} has a prompt that is neither text nor chat messages with role and content."
        )
    return tuple(dict(message) for message in content)
