"""Math: questions with one right final answer, judged by math-verify.

Limits: only the final answer counts, not the way to it; an answer that math-verify cannot read
counts as wrong.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.base import Prompt, SingleTurnTask, Split
from layerpick.training.tasks.rewards import call_reward, load_reward
from layerpick.training.tasks.rows import Row, RowSource, as_prompts, open_rows

DEFAULT_DATASET = "openai/gsm8k"
_PLAIN_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


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
        """Rows with a `prompt` and an `answer`, GSM8K rows, or SVAMP rows."""
        return as_prompts(self._rows.draw(split, count, seed), _prompt)

    def rewards(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """1.0 or 0.0 by `is_correct`, or whatever the user's own reward function says."""
        if self._own_reward is not None:
            return call_reward(self._own_reward, prompts, completions)
        return [
            float(is_correct(completion, str(prompt.columns["answer"])))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def final_answer(self, completion: str) -> str:
        """The number, or the expression as math-verify reads it, else the text."""
        written = _final_answer(completion)
        if _PLAIN_NUMBER.fullmatch(written):
            return str(Fraction(written))
        return _read_expression(written)

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


def is_correct(completion: str, answer: str) -> bool:
    """Whether the final answer of a completion equals `answer` as a number or expression."""
    written, expected = _final_answer(completion), answer.strip()
    if _PLAIN_NUMBER.fullmatch(written) and _PLAIN_NUMBER.fullmatch(expected):
        return Fraction(written) == Fraction(expected)
    return _verified(written, expected)


def _final_answer(text: str) -> str:
    """What follows the last `####`, GSM8K's mark for the final answer, or the whole text."""
    return text.rpartition("####")[2].strip()


@lru_cache(maxsize=65536)
def _read_expression(written: str) -> str:
    from math_verify import parse

    main = threading.current_thread() is threading.main_thread()
    found = parse(written, parsing_timeout=5 if main else None)
    return str(found[0]) if found else written


@lru_cache(maxsize=65536)
def _verified(written: str, expected: str) -> bool:
    from math_verify import parse, verify

    # math-verify's time limit is an alarm signal, which only the main thread can set.
    main = threading.current_thread() is threading.main_thread()
    gold = parse(f"${expected}$", parsing_timeout=5 if main else None)
    answer = parse(written, parsing_timeout=5 if main else None)
    return bool(verify(gold, answer, timeout_seconds=5 if main else None))


def _prompt(row: Row) -> Prompt:
    columns = dict(row.columns)
    if "prompt" not in columns and "question" in columns:
        columns["prompt"] = columns["question"]
    elif "prompt" not in columns and {"Body", "Question"} <= columns.keys():
        body = str(columns["Body"]).strip()
        columns["prompt"] = f"{body if body.endswith('.') else body + '.'} {columns['Question']}"
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
    return _final_answer(str(answer)).replace(",", "")


def _messages(content: Any, source: str) -> tuple[dict[str, str], ...]:
    is_chat = isinstance(content, Sequence) and all(
        isinstance(message, dict) and {"role", "content"} <= message.keys() for message in content
    )
    if not is_chat:
        raise LayerpickError(
            f"{source} has a prompt that is neither text nor chat messages with role and content."
        )
    return tuple(dict(message) for message in content)
