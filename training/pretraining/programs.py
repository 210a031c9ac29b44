"""One-line programs described in a comment, with demonstrations that are partly wrong.

A program applies two or three steps to its argument: `add 3, double` is `(x + 3) * 2`. Its rows
carry assertions, so a completion is judged by running it.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from layerpick.training.pretraining.pretrain import Corpus, Document

ENTRY_POINT = "f"
PROMPT = "def f(x):  # {words}\n    return"


@dataclass(frozen=True)
class Step:
    """One operation on the value so far."""

    words: str
    code: str
    """Python, with `{}` where the value goes."""
    apply: Callable[[int], int]


def _step(words: str, symbol: str, number: int, function: Callable[[int, int], int]) -> Step:
    return Step(words, f"{{}} {symbol} {number}", lambda value: function(value, number))


STEPS = (
    *(_step(f"add {number}", "+", number, operator.add) for number in range(1, 10)),
    *(_step(f"take {number}", "-", number, operator.sub) for number in range(1, 10)),
    _step("double", "*", 2, operator.mul),
    _step("triple", "*", 3, operator.mul),
    _step("square", "**", 2, operator.pow),
    Step("negate", "-{}", operator.neg),
)

Program = tuple[Step, ...]


def draw(generator: random.Random) -> Program:
    """Two or three steps, each with the same chance."""
    return tuple(generator.choices(STEPS, k=generator.choice((2, 3))))


def prompt(program: Program) -> str:
    """The start of the function, up to `return`."""
    return PROMPT.format(words=", ".join(step.words for step in program))


def completion(program: Program) -> str:
    """The rest of the function's line."""
    code = "x"
    for step in program:
        code = step.code.format(code if code == "x" else f"({code})")
    return f" {code}\n"


def noisy_programs(wrong: float) -> Corpus:
    """Demonstrations (prompt, completion) in which each step is another one with chance `wrong`."""

    def documents(generator: random.Random) -> Iterator[Document]:
        while True:
            asked = draw(generator)
            written = tuple(
                generator.choice(STEPS) if generator.random() < wrong else step for step in asked
            )
            yield prompt(asked), completion(written)

    return documents


def rows(count: int, generator: random.Random, tests: int = 3) -> Iterator[dict[str, object]]:
    """`count` different programs as rows of a data set: `prompt`, `tests`, `entry_point`."""
    seen: set[str] = set()
    while len(seen) < count:
        program = draw(generator)
        if prompt(program) in seen:
            continue
        seen.add(prompt(program))
        arguments = generator.sample(range(-5, 10), tests)
        yield {
            "prompt": prompt(program),
            "tests": [f"assert {ENTRY_POINT}({x}) == {_run(program, x)}" for x in arguments],
            "entry_point": ENTRY_POINT,
        }


def _run(program: Program, value: int) -> int:
    for step in program:
        value = step.apply(value)
    return value
