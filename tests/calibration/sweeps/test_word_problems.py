"""The word problems for sweeps of pretrained models."""

import json
from pathlib import Path

import pytest

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.training.own_code import import_file
from layerpick.training.tasks.answers import is_correct

DATASETS = Path(SHIPPED_SWEEPS).parent / "datasets"


def test_every_problem_is_solved_by_one_operation_on_its_two_numbers_and_a_calculation_counts():
    rows = [json.loads(line) for line in (DATASETS / "word_problems.jsonl").open(encoding="utf-8")]
    assert len({row["prompt"] for row in rows}) == len(rows) > 500
    for row in rows:
        first, second = row["numbers"].split(" and ")
        assert first in row["prompt"] and second in row["prompt"]
        calculations = [
            f"{a} {s} {b}" for a, b in ((first, second), (second, first)) for s in "+-*/"
        ]
        assert any(is_correct(calculation, row["answer"]) for calculation in calculations)


@pytest.mark.parametrize(
    ("body", "equation", "numbers"),
    [
        ("Tom had 8 apples, 5 pears and ate 3 apples", "( 8.0 - 3.0 )", "8 and 3"),
        ("Tom ate 3 apples of his 12", "( 12.0 - 3.0 )", "12 and 3"),  # the larger one first
        ("Tom had 8 apples, 5 pears and ate 3 apples", "( 8.0 - 4.0 )", None),  # 4 is not named
        ("Tom had 8 apples and then 8 pears", "( 8.0 + 8.0 )", None),  # which 8?
        ("Tom had 8 apples and ate 3, then 2", "( ( 8.0 - 3.0 ) - 2.0 )", None),
        ("Tom had 8 apples and ate 3" + " and waited" * 20, "( 8.0 - 3.0 )", None),  # too long
    ],
)
def test_a_row_of_svamp_is_kept_where_one_operation_solves_it(body, equation, numbers):
    row = {"Body": body, "Question": "How many are left?", "Equation": equation, "Answer": 5.0}
    found = import_file(DATASETS / "word_problems.py", "data set").word_problem(row)
    if numbers is None:
        assert found is None
    else:
        asked = f"{body}, how many are left?"
        assert found == {"prompt": asked, "numbers": numbers, "answer": "5"}
