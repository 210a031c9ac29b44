import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.rows import open_rows, parse_options, split_of


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def questions(tmp_path):
    rows = [{"prompt": f"What is {n}?", "answer": str(n)} for n in range(200)]
    return write(tmp_path / "rows.jsonl", rows)


def prompts(rows):
    return [row.columns["prompt"] for row in rows]


def test_splits_never_overlap_and_cover_everything(questions):
    source = open_rows(questions)
    held = source.draw("heldout", len(source.by_split["heldout"]), seed=1)
    train = source.draw("train", 200 - len(held), seed=2)
    assert set(prompts(held)).isdisjoint(prompts(train))
    assert len({*prompts(held), *prompts(train)}) == 200
    assert 20 <= len(held) <= 60  # one in five, give or take


@pytest.mark.parametrize("names", [("problem",), ("text",), ("Body", "Question")])
def test_a_question_asked_twice_is_on_one_side_only(tmp_path, names):
    """Whatever its column is called, and whatever else its rows say."""
    asked = [dict.fromkeys(names, f"What is {n}?") for n in range(100)]
    rows = [{**each, "id": f"{n}-{t}", "solution": t} for n, each in enumerate(asked) for t in "ab"]
    source = open_rows(write(tmp_path / "rows.jsonl", rows))
    sides = [
        {row.columns[names[-1]] for row in source.by_split[split]} for split in ("train", "heldout")
    ]
    assert sides[0].isdisjoint(sides[1]) and len(sides[0] | sides[1]) == 100 and all(sides)


def test_draws_follow_the_seed(questions):
    source = open_rows(questions)
    assert source.draw("train", 10, 3) == open_rows(questions).draw("train", 10, 3)
    assert source.draw("train", 10, 3) != source.draw("train", 10, 4)
    with pytest.raises(LayerpickError, match="1000 were asked"):
        source.draw("train", 1000, 0)


def test_parquet_and_json_hold_the_same_rows(questions, tmp_path):
    import pyarrow
    import pyarrow.parquet

    records = [json.loads(line) for line in Path(questions).read_text().splitlines()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(records))
    expected = open_rows(questions).fingerprint()
    assert open_rows(str(tmp_path / "rows.parquet")).fingerprint() == expected
    assert open_rows(str(tmp_path / "rows.json")).fingerprint() == expected


def test_generated_rows_differ_and_do_not_overlap():
    source = open_rows("reasoning-gym:chain_sum?min_terms=2&max_terms=2&max_digits=2")
    train, held = source.draw("train", 60, 0), source.draw("heldout", 20, 1)
    assert len(set(prompts(train))) == 60
    assert set(prompts(train)).isdisjoint(prompts(held))
    for row in train:
        left, sign, right = row.columns["expression"].split()
        expected = int(left) + (1 if sign == "+" else -1) * int(right)
        assert int(row.columns["answer"]) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "a", "answer": "1"}\nnot json\n', "rows.jsonl:2 cannot be read as JSON"),
        ('["a list"]\n', "rows.jsonl:1 is not a record"),
    ],
)
def test_broken_files_name_the_line(tmp_path, content, said):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(LayerpickError, match=said):
        open_rows(str(path))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("reasoning-gym:no_such", "no generator 'no_such'"),
        ("reasoning-gym:chain_sum?wrong=1", "refused the options"),
        ("reasoning-gym:chain_sum?min_terms", "name=value"),
        ("nowhere/rows.jsonl", "does not exist"),
        ("nowhere/rows", "neither a local file"),
        ("reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1", "only"),
    ],
)
def test_bad_sources_are_one_sentence(spec, said, monkeypatch):
    # The variables are read on import, which another test may have done.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(LayerpickError, match=said):
        open_rows(spec).draw("heldout", 500, 0)


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.integers() | st.booleans()))
def test_options_survive_the_round_trip(options):
    query = "&".join(f"{key}={json.dumps(value)}" for key, value in options.items())
    assert parse_options(f"name?{query}") == ("name", options)


@given(st.text())
def test_every_text_has_one_split(text):
    assert split_of(text) in ("train", "heldout")
    assert split_of(text) == split_of(text)
