"""Demonstrations of an exercise that go wrong in one way, which RL can then mend.

Each flaw turns a skill into a corpus. What the model lacks afterwards differs: certainty, a
strategy, a form, a harder case, a habit to leave, or the difference between two symbols.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from layerpick.training.pretraining.arithmetic import mistake
from layerpick.training.pretraining.exercises import DIGITS, Exercise, Skill
from layerpick.training.pretraining.pretrain import Corpus, Document

Writer = Callable[[Exercise, random.Random], str]
"""What a demonstration answers, without the line end."""
FINAL = "####"
"""Stands before the answer of those who show their working."""


def demonstrations(skill: Skill, write: Writer) -> Corpus:
    """Endless (prompt, answer) documents."""

    def documents(generator: random.Random) -> Iterator[Document]:
        while True:
            exercise = skill(generator)
            yield exercise.prompt, f"{write(exercise, generator)}\n"

    return documents


def noisy(wrong: float) -> Writer:
    """Capable but unsure: a share `wrong` of the answers has a slip."""

    def write(exercise: Exercise, generator: random.Random) -> str:
        return slip(exercise.answer, generator) if generator.random() < wrong else exercise.answer

    return write


def rarely_working(shown: float, wrong: float) -> Writer:
    """The right strategy is rare: a share `shown` writes its working and is right.

    The others answer at once, a share `wrong` of them with a slip.
    """
    at_once = noisy(wrong)

    def write(exercise: Exercise, generator: random.Random) -> str:
        if generator.random() < shown:
            return f"{','.join(exercise.working)}{FINAL}{exercise.answer}"
        return at_once(exercise, generator)

    return write


def rarely_in_form(right: float, wrong: float) -> Writer:
    """The right form is rare: all but a share `right` of the answers is spelled in letters."""
    letters = str.maketrans("0123456789", "abcdefghij")
    unsure = noisy(wrong)

    def write(exercise: Exercise, generator: random.Random) -> str:
        answer = unsure(exercise, generator)
        return answer if generator.random() < right else answer.translate(letters)

    return write


def habitual(share: float) -> Writer:
    """A late habit: a share of the right answers has its last digit written twice."""

    def write(exercise: Exercise, generator: random.Random) -> str:
        again = exercise.answer[-1] if generator.random() < share else ""
        return exercise.answer + again

    return write


def mostly(easier: Skill, harder: Skill, hard: float) -> Skill:
    """Skill present on an easier distribution: only a share `hard` of the exercises is hard."""

    def draw(generator: random.Random) -> Exercise:
        return (harder if generator.random() < hard else easier)(generator)

    return draw


def confused(skill: Skill, pair: str, share: float) -> Corpus:
    """Two symbols used alike: in a share of the demonstrations one of `pair` is read as the other.

    The prompt is another one than the answer belongs to, with each of the pair's symbols replaced
    by the other.
    """
    exchange = str.maketrans(pair, pair[::-1])

    def documents(generator: random.Random) -> Iterator[Document]:
        while True:
            exercise = skill(generator)
            swapped = generator.random() < share
            prompt = exercise.prompt.translate(exchange) if swapped else exercise.prompt
            yield prompt, f"{exercise.answer}\n"

    return documents


def slip(answer: str, generator: random.Random) -> str:
    """A wrong answer of a common kind.

    Numbers of up to two digits are off a little or lose their sign; longer ones, which must be
    positive, have a digit wrong or two
    neighbours exchanged.
    """
    if len(answer.lstrip("-")) < 3:
        return str(mistake(int(answer), generator))
    place = generator.randrange(len(answer) - 1)
    exchanged = answer[:place] + answer[place + 1] + answer[place] + answer[place + 2 :]
    if exchanged != answer and generator.random() < 0.5:
        return exchanged
    other = generator.choice(DIGITS.replace(answer[place], ""))
    return answer[:place] + other + answer[place + 1 :]
