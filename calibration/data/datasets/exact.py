"""Rewards for sweeps of small pretrained models: 1 where the first line is the answer, else 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def exact(completions: Sequence[str], answer: Sequence[Any], **_: Any) -> list[float]:
    """Exact, but for white space and case."""

    def plain(text: Any) -> str:
        lines = str(text).strip().splitlines() or [""]
        return "".join(lines[0].lower().split()).strip(".'\"")

    return [float(plain(c) == plain(a)) for c, a in zip(completions, answer, strict=True)]
