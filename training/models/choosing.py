"""`--layer` and `--layers`: which decoder layers a person means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerpick.training.errors import LayerpickError

_COUNTED = re.compile(r"(top|middle|every):([0-9]{1,9})")


def needs_ranking(text: str) -> bool:
    """Whether layers are chosen from a ranking: `auto` or `top:K`."""
    return text == "auto" or text.startswith("top:")


def choose_layers(
    text: str, count: int, ranking: Sequence[int] | None = None, *, option: str = "--layers"
) -> tuple[int, ...]:
    """The layers, ascending, that a text means in a model of `count` layers.

    `all`; numbers as `3,4`; `middle:K`, the K around the middle; `every:N`, each N-th from the
    first; and with a `ranking`, best first, `auto`, its first, and `top:K`, its first K. Raises
    LayerpickError for anything else, and for layers that the model has not.
    """
    if text == "all":
        return tuple(range(count))
    kind, number = _parsed(text)
    if kind == "middle" and number:
        wanted = min(number, count)
        start = (count - wanted) // 2
        return tuple(range(start, start + wanted))
    if kind == "every" and number:
        return tuple(range(0, count, number))
    if kind == "top" and number and ranking is not None:
        return tuple(sorted(ranking[:number]))
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        ranked = "auto, top:3, " if ranking is not None else ""
        raise LayerpickError(
            f"{option} '{text}' is none of: {ranked}all, 0,4,8 (numbers), middle:5, every:3."
        )
    chosen = tuple(sorted({int(part) for part in text.split(",")}))
    if chosen[-1] >= count:
        raise LayerpickError(
            f"{option} {text} does not exist: the model's layers are 0 to {count - 1}."
        )
    return chosen


def _parsed(text: str) -> tuple[str, int]:
    """The kind of choice and its number; `auto` is `top:1`."""
    if text == "auto":
        return "top", 1
    match = _COUNTED.fullmatch(text)
    return (match[1], int(match[2])) if match else ("numbers", 0)
