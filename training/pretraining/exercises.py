"""Short exercises with one right number as the answer, drawn at random.

An exercise is what a demonstration is made of and what a row of a task's data holds. Its answer
is written in digits without a leading zero, so that it is read as the number it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

DIGITS = "123456789"
LETTERS = "abcdefghijkl"


@dataclass(frozen=True)
class Exercise:
    """One question."""

    prompt: str
    answer: str
    working: tuple[str, ...]
    """What a careful writer puts down on the way, the answer last."""


Skill = Callable[[random.Random], Exercise]
"""Draws one exercise."""


def sums(terms: int, signs: str = "+-") -> Skill:
    """`3+4-2=`: running totals of one-digit terms; the signs are + and whatever means minus."""

    def draw(generator: random.Random) -> Exercise:
        total = generator.randint(1, 9)
        prompt, totals = str(total), []
        for _ in range(terms - 1):
            sign, term = generator.choice(signs), generator.randint(1, 9)
            total += term if sign == "+" else -term
            prompt += f"{sign}{term}"
            totals.append(str(total))
        return Exercise(f"{prompt}=", totals[-1], tuple(totals))

    return draw


def sorting(length: int) -> Skill:
    """`4293>`: the digits in rising order; written down one smallest digit after another."""

    def draw(generator: random.Random) -> Exercise:
        digits = "".join(generator.choices(DIGITS, k=length))
        ordered = "".join(sorted(digits))
        steps = tuple(ordered[: end + 1] for end in range(length))
        return Exercise(f"{digits}>", ordered, steps)

    return draw


def reversal(length: int) -> Skill:
    """`4293<`: the digits from the last to the first."""

    def draw(generator: random.Random) -> Exercise:
        digits = "".join(generator.choices(DIGITS, k=length))
        backwards = digits[::-1]
        return Exercise(f"{digits}<", backwards, (backwards,))

    return draw


def edits(length: int) -> Skill:
    """`4293 swap 9 7:`: the digits with one of them replaced wherever it stands."""

    def draw(generator: random.Random) -> Exercise:
        digits = "".join(generator.choices(DIGITS, k=length))
        old, new = generator.choice(digits), generator.choice(DIGITS)
        edited = digits.replace(old, new)
        return Exercise(f"{digits} swap {old} {new}:", edited, (edited,))

    return draw


def recall(pairs: int, asked: int = 1) -> Skill:
    """`a4 b9 c3 b+c=`: numbers given by name, some of them asked for far behind, and added."""

    def draw(generator: random.Random) -> Exercise:
        names = generator.sample(LETTERS, pairs)
        values = [generator.randint(1, 9) for _ in names]
        given = " ".join(f"{name}{value}" for name, value in zip(names, values, strict=True))
        chosen = generator.sample(range(pairs), asked)
        question = "+".join(names[index] for index in chosen)
        found = [values[index] for index in chosen]
        working = tuple(str(sum(found[: end + 1])) for end in range(asked))
        return Exercise(f"{given} {question}=", working[-1], working)

    return draw


def rows(skill: Skill, count: int, generator: random.Random) -> Iterator[dict[str, str]]:
    """`count` exercises with different prompts as rows of a data set: `prompt` and `answer`."""
    seen: set[str] = set()
    while len(seen) < count:
        exercise = skill(generator)
        if exercise.prompt not in seen:
            seen.add(exercise.prompt)
            yield {"prompt": exercise.prompt, "answer": exercise.answer}
