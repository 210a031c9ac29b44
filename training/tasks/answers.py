"""The final answer of a completion, and whether it is right.

What the verdict is about is cut out first: the last box, else what follows the last `####`
(GSM8K's mark), else what follows the last "answer", else the end of the text. Plain numbers are
compared digit by digit, however many there are; everything else is math-verify's to read.

Limits: an answer that math-verify cannot read within some seconds, or of more than 1,000
characters, counts as wrong.
"""

from __future__ import annotations

import logging
import re
import threading
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

LONGEST = 1000
"""Characters of an answer that is no plain number."""
TAIL = 300
"""Characters of the end of a text that names no answer, and of what follows the word."""
SECONDS = 5
"""For reading one answer, and for comparing it."""
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(?!\s*\})")
_HASHES = re.compile(r"####[ \t]*(?=[^\sA-Za-z#])([^\n]*)")
_SPACE = re.compile(r"\s")
_SAID = re.compile(r"\banswer\b", re.IGNORECASE)
_SAID_NUMBER = re.compile(r"\banswer\b(?=[^\n]{0,60}?\d)", re.IGNORECASE)
"""The word with a number soon after it, which counts before one that is only spoken of."""
_NUMBER = re.compile(r"[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d*)?(?:[eE][-+]?\d{1,3})?")
_MIXED = re.compile(r"(-?)\b(\d{1,9})[ \t]+(\d{1,9})/(\d{1,9})\b")
"""A mixed number, as 1 1/2."""
logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it prints all that it cannot read


def is_correct(completion: str, answer: str) -> bool:
    """Whether the final answer of a completion equals `answer` as a number or expression."""
    written, expected = final_answer(completion), answer.strip()
    if written is None:
        return False
    own, gold = _number(written), _number(expected)
    if own is not None and gold is not None:
        return own == gold
    return _verified(written, expected)


def readable_answer(completion: str) -> str | None:
    """The final answer as it was understood; None where a completion has none that can be read."""
    written = final_answer(completion)
    if written is None or _number(written) is not None:
        return written
    found = _parsed(written)
    return str(found[-1]) if found else None


def canonical_answer(completion: str) -> str:
    """The same text for answers that are the same number or expression."""
    written = final_answer(completion)
    if written is None:
        return completion.strip()
    number = _number(written)
    if number is not None:
        return str(Fraction(number)) if len(written) < LONGEST else str(number)
    found = _parsed(written)
    return str(found[0]) if found else written


def final_answer(completion: str) -> str | None:
    """The part of a completion that is judged; None where there is nothing to judge."""
    said = completion.rpartition("</think>")[2].strip()
    boxes = _boxes(said)
    if boxes:
        closed = [box for box in boxes if box is not None]
        return closed[-1] if closed else None  # one that was cut off tells nothing
    marked = _HASHES.findall(said)
    if marked:
        return marked[-1].strip()
    words = [match.start() for match in _SAID_NUMBER.finditer(said)]
    words = words or [match.start() for match in _SAID.finditer(said)]
    if words:
        said = said[words[-1] :]
        return said[: _word_end(said, TAIL)].strip()
    return said[len(said) - _word_end(said[::-1], TAIL) :] or None


def _boxes(text: str) -> list[str | None]:
    """All boxes with something in them, in order; None for one that is never closed."""
    starts = {match.end() - 1: index for index, match in enumerate(_BOX.finditer(text))}
    found: list[str | None] = [None] * len(starts)
    open_braces: list[int] = []
    for place, sign in enumerate(text) if starts else ():
        if sign == "{" and text[place - 1] != "\\":
            open_braces.append(place)
        elif sign == "}" and text[place - 1] != "\\" and open_braces:
            start = open_braces.pop()
            if start in starts:
                found[starts[start]] = f"\\boxed{text[start : place + 1]}"
    return found


def _word_end(text: str, place: int) -> int:
    """Where the word at `place` ends."""
    match = _SPACE.search(text, place)
    return match.start() if match else len(text)


def _number(text: str) -> Decimal | None:
    """A plain number, with its currency, digit groups and full stop; exact at any length."""
    plain = text.removeprefix("\\boxed{").removesuffix("}") if text.startswith("\\boxed{") else text
    plain = plain.strip().strip("$").removeprefix("\\$").replace("−", "-").strip()
    plain = plain.replace("{,}", ",").replace("\\,", ",").replace("\\!", "")
    plain = plain.lstrip("£€$").removesuffix(".")
    return Decimal(plain.replace(",", "")) if _NUMBER.fullmatch(plain) else None


@lru_cache(maxsize=65536)
def _verified(written: str, expected: str) -> bool:
    from math_verify import verify

    gold, answer = _parsed(f"${expected}$"), _parsed(written)
    return bool(verify(list(gold), list(answer), timeout_seconds=_seconds()))


@lru_cache(maxsize=65536)
def _parsed(text: str) -> tuple:
    """What math-verify reads in a text: an expression and its words, or nothing."""
    from math_verify import parse

    if len(text) > LONGEST:
        return ()
    return tuple(parse(_MIXED.sub(_improper, text), parsing_timeout=_seconds()))


def _improper(mixed: re.Match[str]) -> str:
    whole, part, parts = (int(mixed[group]) for group in (2, 3, 4))
    return f"{mixed[1]}{whole * parts + part}/{parts}"


def _seconds() -> int | None:
    """The time limit is an alarm signal, which only the main thread can set."""
    return SECONDS if threading.current_thread() is threading.main_thread() else None
