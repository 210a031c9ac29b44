"""Exercises are right, and demonstrations go wrong exactly as their flaw says."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.training.pretraining import exercises, flaws

SKILLS = {
    "sums": exercises.sums(3),
    "sorting": exercises.sorting(5),
    "reversal": exercises.reversal(5),
    "edits": exercises.edits(5),
    "recall": exercises.recall(5, 2),
}


def solve(prompt: str) -> str:
    """The answer to a prompt, by reading it."""
    if prompt.endswith(">"):
        return "".join(sorted(prompt[:-1]))
    if prompt.endswith("<"):
        return "".join(reversed(prompt[:-1]))
    if match := re.fullmatch(r"(\d+) swap (\d) (\d):", prompt):
        return re.sub(match[2], match[3], match[1])
    if prompt.endswith("?"):
        *definitions, question = prompt[:-1].split(" ")
        known: dict[str, int] = {}
        for definition in definitions:
            name, value = definition.split("=")
            known[name] = eval(value, {}, known)
        return str(known[question])
    *pairs, question = prompt[:-1].split(" ")
    known = {pair[0]: int(pair[1:]) for pair in pairs}
    return str(eval(question, {}, known))


@pytest.mark.parametrize("name", SKILLS)
@given(seed=st.integers(0, 2**32))
def test_answers_are_right_and_end_the_working(name, seed):
    exercise = SKILLS[name](random.Random(seed))
    assert exercise.answer == solve(exercise.prompt) == exercise.working[-1]
    assert str(int(exercise.answer)) == exercise.answer  # read as a number, it is itself


@pytest.mark.parametrize("name", SKILLS)
def test_rows_differ_and_come_again_from_the_same_seed(name):
    rows = list(exercises.rows(SKILLS[name], 200, random.Random(3)))
    assert len({row["prompt"] for row in rows}) == 200
    assert rows == list(exercises.rows(SKILLS[name], 200, random.Random(3)))
    assert all(row["answer"] == solve(row["prompt"]) for row in rows)


def demonstrated(corpus, count=2000):
    return list(islice(corpus(random.Random(0)), count))


def share(documents, is_so) -> float:
    return sum(map(is_so, documents)) / len(documents)


def is_right(document) -> bool:
    prompt, answer = document
    return answer == solve(prompt) + "\n"


@pytest.mark.parametrize("name", ["sums", "sorting"])
def test_noise_is_wrong_as_often_as_asked(name):
    documents = demonstrated(flaws.demonstrations(SKILLS[name], flaws.noisy(0.4)))
    assert share(documents, is_right) == pytest.approx(0.6, abs=0.04)


def test_those_who_show_their_working_are_right():
    corpus = flaws.demonstrations(SKILLS["sums"], flaws.rarely_working(0.25, 0.7))
    documents = demonstrated(corpus)
    shown = [document for document in documents if flaws.FINAL in document[1]]
    assert len(shown) / len(documents) == pytest.approx(0.25, abs=0.04)
    for prompt, answer in shown:
        working, final = answer.strip().split(flaws.FINAL)
        assert working.split(",")[-1] == final == solve(prompt)
    others = [document for document in documents if document not in shown]
    assert share(others, is_right) == pytest.approx(0.3, abs=0.05)


def test_the_wrong_form_spells_the_same_answer_in_letters():
    writer = flaws.rarely_in_form(0.3, 0.0)
    documents = demonstrated(flaws.demonstrations(SKILLS["reversal"], writer))
    back = str.maketrans("abcdefghij", "0123456789")
    assert share(documents, is_right) == pytest.approx(0.3, abs=0.04)
    assert all(is_right((prompt, answer.translate(back))) for prompt, answer in documents)


def test_the_habit_writes_the_last_digit_twice():
    documents = demonstrated(flaws.demonstrations(SKILLS["sums"], flaws.habitual(0.65)))
    for prompt, answer in documents:
        right = solve(prompt)
        assert answer in (f"{right}\n", f"{right}{right[-1]}\n")
    assert share(documents, is_right) == pytest.approx(0.35, abs=0.04)


def test_confused_symbols_are_told_apart_by_nothing():
    documents = demonstrated(flaws.confused(exercises.sums(2), "+-", 0.5), 20_000)
    answers = {
        sign: Counter(answer for prompt, answer in documents if prompt == f"7{sign}2=")
        for sign in "+-"
    }
    for counted in answers.values():
        assert set(counted) == {"9\n", "5\n"}
        assert counted["9\n"] / counted.total() == pytest.approx(0.5, abs=0.12)


def test_hard_exercises_are_rare():
    draw = flaws.mostly(exercises.sorting(3), exercises.sorting(6), 0.1)
    lengths = Counter(len(draw(random.Random(seed)).answer) for seed in range(1000))
    assert set(lengths) == {3, 6}
    assert lengths[6] / 1000 == pytest.approx(0.1, abs=0.03)


@given(st.integers(-99, 999_999).map(str), st.integers())
def test_a_slip_is_another_number(answer, seed):
    slipped = flaws.slip(answer, random.Random(seed))
    assert int(slipped) != int(answer)
