"""Final answers in the forms that models write, and the verdict that each must get."""

import json

import pytest
from math_verify import parse, verify

from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.answers import final_answer, is_correct, readable_answer
from layerpick.training.tasks.base import TaskSettings
from layerpick.training.tasks.math import MathTask

RIGHT = [
    (r"So the answer is \boxed{18}.", "18"),
    (r"$\boxed{18}$", "18"),
    (r"\[\boxed{18}\]", "18"),
    (r"\boxed{18\text{ dollars}}", "18"),
    (r"\boxed{\$18}", "18"),
    (r"\boxed{$18}", "18"),
    (r"\boxed{18 \text{ eggs per day}}", "18"),
    (r"\boxed{1,234}", "1234"),
    (r"\boxed{1{,}234}", "1234"),
    (r"\boxed{1\,234}", "1234"),
    (r"\boxed{70{,}000}", "70000"),
    (r"\boxed{50\%}", "50"),
    (r"\boxed{50%}", "50"),
    (r"\boxed{0.5}", "1/2"),
    (r"\boxed{\frac{1}{2}}", "0.5"),
    (r"\boxed{\dfrac{3}{4}}", "3/4"),
    (r"\boxed{\tfrac{3}{4}}", r"\frac{3}{4}"),
    (r"\boxed{3/4}", r"\frac{3}{4}"),
    (r"\boxed{\frac12}", "0.5"),
    (r"\boxed{-4}", "-4"),
    (r"\boxed{−4}", "-4"),
    (r"\boxed{+4}", "4"),
    (r"\boxed{18.0}", "18"),
    (r"\boxed{18.00}", "18"),
    (r"\boxed{018}", "18"),
    (r"\boxed{x = 18}", "18"),
    (r"\boxed{2\sqrt{3}}", r"2\sqrt{3}"),
    (r"\boxed{\sqrt{12}}", r"2\sqrt{3}"),
    (r"\boxed{2^{10}}", "1024"),
    (r"\boxed{\pi/2}", r"\frac{\pi}{2}"),
    (r"\boxed{x^2+2x+1}", "(x+1)^2"),
    (r"\boxed{(3, 4)}", "(3,4)"),
    (r"\boxed{\{1,2\}}", r"\{2,1\}"),
    (r"\boxed{\text{(B)}}", "B"),
    (r"\fbox{18}", "18"),
    (r"First \boxed{9}, and doubled: \boxed{18}", "18"),
    (r"\boxed{18 \times 2 = 36}", "36"),
    ("#### 18", "18"),
    ("She makes 9 * 2 = 18.\n#### 18", "18"),
    ("#### $18", "18"),
    ("#### 1,234", "1234"),
    ("#### 18 dollars", "18"),
    ("#### 18.", "18"),
    ("####18", "18"),
    ("#### -3", "-3"),
    ("#### Step 3\nSo she makes 9 * 2 = 18 dollars.", "18"),
    ("#### Final Answer\nThe answer is 18.", "18"),
    ("#### 18\n\nQuestion: what is 3 + 4?", "18"),
    ("The answer is 18.", "18"),
    ("The final answer is $18.", "18"),
    ("The answer is: 18 dollars", "18"),
    ("**Answer:** 18", "18"),
    ("**Answer: 18**", "18"),
    (r"Final answer: $\frac{1}{2}$", "0.5"),
    (r"Therefore, the final answer is: $\boxed{18}$. I hope it is correct.", "18"),
    ("The answer is 18 because 9 * 2 = 18, not 20.", "18"),
    ("So, the answer is 1,234 miles.", "1234"),
    ("The answer is 50%.", "50"),
    ("The answer is 18.5.", "18.5"),
    ("The answer is -7 degrees.", "-7"),
    ("18", "18"),
    ("18.", "18"),
    ("$18", "18"),
    ("18 dollars", "18"),
    ("$18.00", "18"),
    ("She makes $18 every day at the market.", "18"),
    ("First 3 + 4 = 7, then we get 1,234.", "1234"),
    ("9 * 2 = 18", "18"),
    ("x = 18", "18"),
    ("The total is **18**", "18"),
    ("They need 18/2 = 9 bags.", "9"),
    ("$$\n18\n$$", "18"),
    (r"\( 18 \)", "18"),
    (r"The answer is $\frac{3}{4}$ of a cup.", "0.75"),
    ("The answer is 3/4.", "0.75"),
    ("The answer is 1 1/2.", "1.5"),
    (r"\boxed{1\frac{1}{2}}", "1.5"),
    ("<think>maybe \\boxed{9}</think>\nThe answer is \\boxed{18}.", "18"),
    (r"\boxed{10:30}", "10:30"),
    (r"\boxed{18^\circ}", "18"),
    (r"\boxed{18\,\mathrm{cm}^2}", "18"),
    (r"\boxed{18 cm}", "18"),
    (r"\boxed{1.8 \times 10^1}", "18"),
    (r"\boxed{1e3}", "1000"),
    (r"\boxed{£18}", "18"),
    (r"\boxed{\approx 18}", "18"),
    (r"\boxed{\mathbf{18}}", "18"),
    (r"\boxed{\text{18}}", "18"),
    (r"\boxed{\textbf{18}}", "18"),
    ("The answer is:\n\n18", "18"),
    ("Answer: 18 eggs and 3 left over", "18"),
    ("Thus Janet makes 9 × 2 = $18 per day.", "18"),
    (r"I will put my answer in \boxed{}. The answer is 18.", "18"),
    ("Her answer of 20 is wrong. The right answer is 18.", "18"),
    ("The answer is -1 1/2.", "-1.5"),
    ("The answer is 2 3/4 cups.", "11/4"),
    (r"\boxed{18} eggs, that is \boxed{18}.", "18"),
    ("Step 1: 16 - 3 = 13\nStep 2: 13 - 4 = 9\nStep 3: 9 * 2 = 18", "18"),
    (r"\boxed{\frac{36}{2}}", "18"),
    (r"\boxed{18\%}", "0.18"),
    (r"\boxed{.5}", "0.5"),
    (r"\boxed{5.}", "5"),
    ("the answer is 18\n\nLet me check: 18 / 9 = 2.", "18"),
    (
        "answer 665\n\nas in my answer above, you think that there are no boys in the school at "
        "all, but 105",
        "665",
    ),
]
WRONG = [
    (r"\boxed{(4, 3)}", "(3,4)"),
    (r"First \boxed{18}, and then \boxed{9}", "18"),
    (r"\boxed{18", "18"),
    (r"\boxed{}", "18"),
    (r"\boxed{180}", "18"),
    (r"\boxed{1.8}", "18"),
    (r"\boxed{\text{none}}", "18"),
    ("#### 17", "18"),
    ("The answer is eighteen.", "18"),
    ("It takes 3 hours.", "18"),
    ("no idea", "18"),
    ("", "18"),
    (r"\boxed{18,000}", "18"),
    (r"\boxed{0.18}", "18"),
    (r"\boxed{-18}", "18"),
    ("The answer is 18,000.", "18"),
]
OTHERWISE = {
    r"\boxed{1\,234}",
    r"\fbox{18}",
    r"First \boxed{9}, and doubled: \boxed{18}",
    "####18",
    "#### 18\n\nQuestion: what is 3 + 4?",
    "The answer is 1 1/2.",
    "The answer is -1 1/2.",
    "The answer is 2 3/4 cups.",
    r"\boxed{1e3}",
    r"\boxed{£18}",
    r"\boxed{5.}",
}
"""Where math-verify, given the whole text, is wrong."""
FORMS = [(*form, True) for form in RIGHT] + [(*form, False) for form in WRONG]


def test_the_table_is_long_enough_and_has_both_verdicts():
    assert len(RIGHT) >= 60 and len(WRONG) >= 15
    assert len({text for text, _ in RIGHT + WRONG}) == len(FORMS)


@pytest.mark.parametrize(("text", "gold", "right"), FORMS)
def test_every_form_gets_its_verdict(text, gold, right):
    assert is_correct(text, gold) is right
    own = bool(verify(parse(f"${gold}$"), parse(text)))
    assert own is (right != (text in OTHERWISE)), "math-verify's own verdict has changed"


def test_what_is_judged_is_the_last_answer():
    assert final_answer("#### 3\n#### 4 apples\nQuestion: 5?") == "4 apples"
    assert final_answer("<think>\\boxed{1}</think> So \\boxed{2 {3}}") == "\\boxed{2 {3}}"
    assert final_answer("\\boxed{1} and \\boxed{2, but cut") == "\\boxed{1}"
    assert final_answer("It is 4, so \\boxed{4") is None
    assert final_answer("  ") is None
    assert readable_answer("no idea") is None
    assert readable_answer("She has 7 left") == "7"


LONG = "7" * 5000


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        (LONG, LONG, True),
        (f"\\boxed{{{LONG}}}", LONG, True),
        (f"\\boxed{{-{LONG}}}", LONG, False),
        (f"{LONG}8", LONG, False),
        (f"The answer is {LONG}", "7", False),
        (f"\\boxed{{{LONG}/{LONG}}}", "1", False),
        (f"\\boxed{{{LONG}.5}}", f"{LONG}.50", True),
        ("\\boxed{1e999999999}", "18", False),
        ("(" * 3000 + "1" + ")" * 3000, "1", False),
        ("\\boxed{" * 2000, "1", False),
        ("\\frac{" * 2000, "1", False),
        ("1 " * 20_000, "18", False),
        ("$" * 5000 + "#" * 5000, "18", False),
        ("\x00\ud800\u2063 18", "18", True),
        ("\\boxed{99999!}", "18", False),
        ("\\boxed{\\frac{1}{0}}", "18", False),
    ],
)
def test_whatever_a_model_writes_gets_a_verdict(text, gold, right):
    assert is_correct(text, gold) is right
    readable_answer(text)


def test_a_row_with_too_many_digits_is_one_sentence(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"question": "?", "answer": {LONG}}}\n')
    with pytest.raises(LayerpickError, match=r"rows\.jsonl:1 "):
        MathTask(TaskSettings(dataset=str(path))).prompts("train", 1, 0)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [(3.0, "3"), ("1,234", "1234"), ("so\n#### 1,234", "1234"), ("(3,4)", "(3,4)"), ("$5", "$5")],
)
def test_gold_answers_keep_their_commas_unless_they_group_digits(tmp_path, answer, gold):
    path = tmp_path / "rows.jsonl"
    path.write_text((json.dumps({"problem": "?", "answer": answer}) + "\n") * 9)
    task = MathTask(TaskSettings(dataset=str(path)))
    split = "train" if task._rows.by_split["train"] else "heldout"
    (prompt,) = task.prompts(split, 1, 0)
    assert prompt.content == "?" and prompt.columns["answer"] == gold
