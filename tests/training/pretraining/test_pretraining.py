"""Models trained from scratch: tokenizer, families, corpora, training, and the shipped folders."""

from __future__ import annotations

import ast
import json
import random
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from layerpick.training.episodes.play import SamplingSettings, play
from layerpick.training.errors import LayerpickError
from layerpick.training.models.defaults import REFERENCE, read_defaults, with_defaults
from layerpick.training.models.loading import load_model
from layerpick.training.pretraining.architecture import FAMILIES, Architecture
from layerpick.training.pretraining.arithmetic import mistake, noisy_sums
from layerpick.training.pretraining.pretrain import IGNORED, PretrainSettings, encode, pretrain
from layerpick.training.pretraining.programs import ENTRY_POINT, noisy_programs, rows
from layerpick.training.pretraining.recipes import RECIPES
from layerpick.training.pretraining.tokenizer import byte_tokenizer
from layerpick.training.pretraining.worlds import MOVES, clumsy_walks, way_to_goal
from layerpick.training.sandbox import sandbox_available
from layerpick.training.tasks.base import TaskSettings
from layerpick.training.tasks.table import make_task

SMALL = Architecture("qwen3", layers=2, width=16, heads=2, feed_forward=32, kv_heads=1)
SUMS = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}
TOKENIZER = byte_tokenizer(64)


def draw(corpus, count: int, seed: int = 0):
    return list(islice(corpus(random.Random(seed)), count))


@given(st.text())
def test_any_text_decodes_to_itself(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    assert len(tokens) == len(text.encode())
    assert TOKENIZER.decode(tokens) == text


def test_a_model_is_there_once_its_config_is(tmp_path: Path, monkeypatch) -> None:
    """A disk that is full after so many files leaves none that looks like a model."""
    trained = pretrain(SMALL, noisy_sums(0.5, **SUMS), PretrainSettings(steps=1, batch_size=4))
    whole, moved = Path.replace, []

    def replace(path: Path, target: Path) -> None:
        if len(moved) == files:
            raise OSError(28, "No space left on device")
        moved.append(path.name)
        whole(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    for files in range(3):
        moved.clear()
        with pytest.raises(LayerpickError, match=f"Cannot write {tmp_path}: No space left"):
            trained.save(tmp_path, {"README.md": "a card"})
        assert len(list(tmp_path.iterdir())) == files and "config.json" not in moved
    files = -1
    trained.save(tmp_path)
    assert moved[-1] == "config.json"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_builds_saves_and_loads(family: str, tmp_path: Path) -> None:
    sizes = Architecture(family, layers=3, width=16, heads=2, feed_forward=24)
    trained = pretrain(sizes, noisy_sums(0.5, **SUMS), PretrainSettings(steps=1, batch_size=4))
    trained.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "  4 + 6 =\n\n 10\té"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer) == model.config.vocab_size == 258
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (3, 16)
    assert not [
        name for name, value in model.config.to_dict().items() if name.endswith("pdrop") and value
    ]
    tokens = torch.tensor([tokenizer.encode(text)])
    assert torch.equal(model(tokens).logits, trained.model(tokens).logits)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(LayerpickError, match="'mamba' is not a family"):
        Architecture("mamba", 1, 8, 1, 8).config(258, 0, 1)


def test_the_loss_counts_what_the_model_writes() -> None:
    documents = (("ab", "c", "de", "f"), ("x", "y"))
    tokens, labels = encode(documents, TOKENIZER)
    a, b, c, d, e, f, x, y = (TOKENIZER.encode(letter)[0] for letter in "abcdefxy")
    end, pad, no = TOKENIZER.eos_token_id, TOKENIZER.pad_token_id, IGNORED
    assert tokens.tolist() == [[a, b, c, d, e, f, end], [x, y, end, pad, pad, pad, pad]]
    assert labels.tolist() == [[no, no, c, no, no, f, end], [no, y, end, no, no, no, no]]
    everything = encode(documents, TOKENIZER, learn_prompts=True)[1]
    assert everything.tolist() == [[a, b, c, d, e, f, end], [x, y, end, no, no, no, no]]


def test_a_document_too_long_is_refused() -> None:
    with pytest.raises(LayerpickError, match="'hello.* has 71 tokens"):
        encode((("hello" * 12, "0123456789"),), TOKENIZER)


def test_training_lowers_the_loss_and_the_seed_decides_everything() -> None:
    def train(seed: int):
        torch.rand(1)  # the global generator's state must not matter
        settings = PretrainSettings(30, 32, learning_rate=2e-2, warmup_steps=5, seed=seed)
        return pretrain(SMALL, noisy_sums(0.5, **SUMS), settings)

    first, again, other = train(3), train(3), train(4)
    assert first.losses[0] == pytest.approx(np.log(258), rel=0.05)
    assert np.mean(first.losses[-5:]) < 0.6 * first.losses[0]
    assert first.losses == again.losses != other.losses
    pairs = zip(first.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def sum_of(prompt: str) -> int:
    """The right answer, read off the prompt's text."""
    return sum(int(sign + digits) for sign, digits in re.findall(r"([+-]?) ?(\d+)", prompt))


def test_sums_are_right_or_wrong_as_often_as_asked() -> None:
    assert all(int(answer) == sum_of(prompt) for prompt, answer in draw(noisy_sums(0, **SUMS), 300))
    noisy = draw(noisy_sums(0.3, **SUMS), 2000)
    wrong = np.mean([int(answer) != sum_of(prompt) for prompt, answer in noisy])
    assert wrong == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 2000))
    assert all(re.fullmatch(r" -?\d+\n", answer) for _, answer in noisy)


@given(st.integers(-300, 300), st.randoms())
def test_a_mistake_is_never_right(answer: int, generator: random.Random) -> None:
    assert mistake(answer, generator) != answer


def value_of(expression: str, x: int) -> int:
    """Value of an arithmetic expression of x, by walking its syntax tree."""

    def walk(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(value)):
                return value
            case ast.Name(id="x"):
                return x
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -walk(operand)
            case ast.BinOp(left=left, op=sign, right=right):
                a, b = walk(left), walk(right)
                results = {ast.Add: a + b, ast.Sub: a - b, ast.Mult: a * b}
                return a**b if isinstance(sign, ast.Pow) else results[type(sign)]
        raise AssertionError(ast.dump(node))

    return walk(ast.parse(expression.strip(), mode="eval").body)


WORDS = {"add": lambda v, n: v + n, "take": lambda v, n: v - n}
PLAIN = {"double": 2, "triple": 3, "negate": -1}


def follow(prompt: str, value: int) -> int:
    """What the prompt's comment asks for, step by step."""
    for step in re.search(r"# (.*)\n", prompt)[1].split(", "):
        word, *number = step.split()
        if number:
            value = WORDS[word](value, int(number[0]))
        else:
            value *= value if word == "square" else PLAIN[word]
    return value


def agrees(prompt: str, code: str) -> bool:
    return all(value_of(code, x) == follow(prompt, x) for x in (-3, 0, 1, 2, 7))


def test_programs_do_what_their_comment_says() -> None:
    assert all(agrees(*document) for document in draw(noisy_programs(0), 300))
    noisy = draw(noisy_programs(0.3), 1000)
    assert 0.35 < np.mean([agrees(*document) for document in noisy]) < 0.55


def test_rows_of_programs_carry_true_assertions() -> None:
    table = list(rows(200, random.Random(0)))
    assert len({row["prompt"] for row in table}) == 200
    for row in table:
        assert ast.parse(row["prompt"] + " x").body[0].name == row["entry_point"] == ENTRY_POINT
        asserted = [re.fullmatch(r"assert f\((-?\d+)\) == (-?\d+)", test) for test in row["tests"]]
        assert len(asserted) == 3
        assert all(follow(row["prompt"], int(found[1])) == int(found[2]) for found in asserted)


@pytest.mark.parametrize(
    ("grid", "move"), [("AG", "right"), ("GA", "left"), ("A\nF\nG", "down"), ("FG\nAH", "up")]
)
def test_the_guide_knows_the_way(grid: str, move: str) -> None:
    assert way_to_goal(grid) == move


def test_a_guide_who_never_strays_reaches_the_goal() -> None:
    env = RECIPES["agentic"].task["env"]
    for walk in draw(clumsy_walks(env, 0), 20):
        *_, last_seen, last_move = walk
        grid = last_seen.removesuffix("\n>")
        assert way_to_goal(grid) == last_move.strip()
        rows_seen = grid.split("\n")
        (row, column) = next(
            (r, line.index("A")) for r, line in enumerate(rows_seen) if "A" in line
        )
        down, right = MOVES[last_move.strip()]
        assert rows_seen[row + down][column + right] == "G"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_shipped_folders_hold_what_their_recipe_makes(name: str) -> None:
    folder, recipe = REFERENCE / name, RECIPES[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000
    for file, text in recipe.texts().items():
        assert (folder / file).read_text("utf-8") == text
    model = AutoModelForCausalLM.from_pretrained(folder)
    fresh = recipe.architecture.config(258, 0, 1).to_dict()
    said = model.config.to_dict()
    assert said["model_type"] == "qwen3"
    assert {key for key, value in fresh.items() if said.get(key) != value} <= {
        "architectures",
        "dtype",
        "_name_or_path",
        "transformers_version",
    }
    assert AutoTokenizer.from_pretrained(folder).decode([21, 200, 222]) == byte_tokenizer(9).decode(
        [21, 200, 222]
    )
    assert model.dtype == torch.float32


BASE = {"math": (0.35, 0.60), "code": (0.2, 0.6), "agentic": (0.2, 0.6)}
COUNT = {"math": 400, "code": 128, "agentic": 64}


@pytest.mark.parametrize("name", sorted(BASE))
def test_shipped_models_start_where_rl_can_lift_them(name: str) -> None:
    if name == "code" and not sandbox_available():
        pytest.skip("no bubblewrap here")
    defaults = read_defaults(REFERENCE / name, name)
    task = make_task(name, with_defaults(TaskSettings(), defaults))
    settings = SamplingSettings(defaults.max_new_tokens, 1.0, defaults.stop)
    model = load_model(str(REFERENCE / name), device="cpu")
    played = play(model, task, task.prompts("heldout", COUNT[name], 0), 1, settings, seed=0)
    low, high = BASE[name]
    assert low < np.mean([trajectory.reward for trajectory in played]) < high


def test_the_shipped_programs_are_json_lines() -> None:
    lines = (REFERENCE / "code" / "programs.jsonl").read_text("utf-8").splitlines()
    assert {frozenset(json.loads(line)) for line in lines} == {
        frozenset({"prompt", "tests", "entry_point"})
    }
