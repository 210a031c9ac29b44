from pathlib import Path

import pytest

from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.base import TaskSettings
from layerpick.training.tasks.math import MathTask, is_correct
from layerpick.training.tasks.table import make_task

DATA = Path(__file__).parents[2] / "data"
STYLES = (
    "{n}",
    "#### {n}",
    "So the answer is \\boxed{{{n}}}.",
    "She makes ${n} every day.",
    "{n} dollars",
    "{n}.00",
    "The total is **{n}**",
    "Answer: {n}",
    "x = {n}",
    "\\frac{{{double}}}{{2}}",
    "First 3 + 4 = 7, then we get {commas}.",
)


def styles(n: int) -> list[str]:
    return [style.format(n=n, double=2 * n, commas=f"{n:,}") for style in STYLES]


def task(**settings) -> MathTask:
    return MathTask(TaskSettings(**settings))


def test_gsm8k_answers_in_common_styles_score_one_and_near_misses_zero():
    gsm8k = task(dataset=str(DATA / "gsm8k.jsonl"))
    for prompt in gsm8k.prompts("train", 12, seed=0):
        # The answer stands after #### in the raw file: read it independently.
        expected = int(prompt.columns["answer"])
        right = styles(expected)
        assert gsm8k.rewards([prompt] * len(right), right) == [1.0] * len(right), right
        wrong = [*styles(expected + 1), *styles(10 * expected + 7), "no idea", ""]
        assert gsm8k.rewards([prompt] * len(wrong), wrong) == [0.0] * len(wrong)


def test_gsm8k_gold_is_what_follows_the_hashes():
    import json

    rows = [json.loads(line) for line in (DATA / "gsm8k.jsonl").read_text().splitlines()]
    by_question = {row["question"]: row["answer"].split("#### ")[1] for row in rows}
    for prompt in task(dataset=str(DATA / "gsm8k.jsonl")).prompts("train", 15, seed=0):
        assert prompt.columns["answer"] == by_question[prompt.content].replace(",", "")


def test_svamp_rows_are_read():
    prompts = task(dataset=str(DATA / "svamp.json")).prompts("train", 10, seed=0)
    for prompt in prompts:
        assert prompt.content.endswith(str(prompt.columns["Question"]))
        assert is_correct(str(prompt.columns["Answer"]), prompt.columns["answer"])


@pytest.mark.parametrize(
    ("written", "answer", "right"),
    [
        ("0.5", "1/2", True),
        ("\\boxed{-4}", "-4", True),
        ("-4", "4", False),
        ("18.5", "18", False),
        ("1,8", "18", False),
        ("7", "07", True),
        ("+3", "3", True),
        ("-0", "0", True),
        ("18\n", "18", True),
    ],
)
def test_single_answers(written, answer, right):
    assert is_correct(written, answer) is right


def test_chat_rows(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text('{"prompt": [{"role": "user", "content": "2+2?"}], "answer": 4}\n' * 9)
    prompts = task(dataset=str(path))
    split = "train" if prompts._rows.by_split["train"] else "heldout"
    (prompt,) = prompts.prompts(split, 1, 0)
    assert prompt.content == ({"role": "user", "content": "2+2?"},)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"text": "a", "answer": "1"}', r"rows\.jsonl:1 has no 'prompt'.*text, answer"),
        ('{"prompt": "a"}', "has no 'answer'"),
        ('{"prompt": "  ", "answer": "1"}', "empty prompt"),
        ('{"prompt": 7, "answer": "1"}', "neither text nor chat"),
    ],
)
def test_broken_rows_name_file_and_line(tmp_path, row, said):
    path = tmp_path / "rows.jsonl"
    path.write_text(row + "\n")
    broken = task(dataset=str(path))
    split = "train" if broken._rows.by_split["train"] else "heldout"
    with pytest.raises(LayerpickError, match=said):
        broken.prompts(split, 1, 0)


def own_reward(tmp_path, body) -> str:
    path = tmp_path / "mine.py"
    path.write_text(f"def score(completions, **columns):\n    {body}\n")
    return f"{path}:score"


def test_own_reward_sees_what_trl_would_give(tmp_path):
    spec = own_reward(
        tmp_path, "return [float(a == c) for a, c in zip(columns['answer'], completions)]"
    )
    mine = task(dataset=str(DATA / "gsm8k.jsonl"), reward=spec)
    prompts = mine.prompts("train", 2, 0)
    assert mine.rewards(prompts, [prompts[0].columns["answer"], "x"]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('x')", "'score' raised KeyError"),
        ("return [1.0]", "returned 1 values for 2 completions"),
        ("return None", "returned NoneType"),
        ("return [float('nan'), 1]", "returned nan for .*gsm8k"),
        ("return ['a', 'b']", "must be finite numbers"),
    ],
)
def test_bad_rewards_are_one_sentence(tmp_path, body, said):
    mine = task(dataset=str(DATA / "gsm8k.jsonl"), reward=own_reward(tmp_path, body))
    prompts = mine.prompts("train", 2, 0)
    with pytest.raises(LayerpickError, match=said):
        mine.rewards(prompts, ["a", "b"])


@pytest.mark.parametrize("spec", ["mine.py", "nowhere.py:score", "{path}:other", "{bad}:score"])
def test_bad_reward_specs(tmp_path, spec):
    path = own_reward(tmp_path, "return []").removesuffix(":score")
    bad = tmp_path / "bad.py"
    bad.write_text("import no_such_module")
    mine = task(dataset=str(DATA / "gsm8k.jsonl"), reward=spec.format(path=path, bad=bad))
    with pytest.raises(LayerpickError):
        mine.rewards(mine.prompts("train", 1, 0), ["a"])


def test_unknown_task():
    with pytest.raises(LayerpickError, match="math, code, agentic"):
        make_task("chess", TaskSettings())
