"""Every file that the tool reads, mutated field by field and byte by byte: a sentence or the truth.

A case passes if reading it ends in a LayerpickError, or (where the mutation may be harmless) in a
value; any other exception is a traceback that a user would see. Numbers replaced by nonsense and
damaged tensors must be refused. `FUZZ_SEED` chooses other cases; it is printed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from layerpick.calibration.predictors.stored import SHIPPED_PREDICTORS, load_predictors
from layerpick.calibration.sweeps.examples import load_examples
from layerpick.calibration.sweeps.store import read_folder
from layerpick.selector.app.app import run as layerpick
from layerpick.selector.suggestion.result import read_suggestion
from layerpick.training.episodes.rollouts import load_rollouts
from layerpick.training.errors import LayerpickError
from layerpick.training.models.defaults import REFERENCE, read_defaults
from layerpick.training.models.loading import load_model
from layerpick.training.runs.checkpoint import (
    Checkpoint,
    load_optimizer,
    load_trained,
    save_checkpoint,
)
from layerpick.training.runs.delta import read_delta
from layerpick.training.runs.folder import RunFolder
from layerpick.training.tasks.settings import TaskSettings
from layerpick.training.tasks.table import make_task

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("FUZZ_SEED", "0"))
NONSENSE: tuple[Any, ...] = (float("nan"), float("inf"), 1e308, -(10**31), "x", [], {}, [[1]])
OTHERS: tuple[Any, ...] = (None, True, 0, -1, 10**400, "", "\ud800", "[/red]", {"a": {"b": 1}})
FREE = ("values", "trl", "metadata")
"""Fields that may hold anything."""
SMALL = ["--prompts", "2", "--group-size", "4", "--heldout-prompts", "4"]


@dataclass
class Tally:
    """What became of the cases."""

    cases: int = 0
    refused: int = 0

    def __str__(self) -> str:
        return f"{self.cases} cases, {self.refused} refused (seed {SEED})"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each file, made by the real commands."""
    place = tmp_path_factory.mktemp("made")
    few = ["--prompts", "4", "--group-size", "4", "--probes", "weights", "--device", "cpu"]
    rollouts = ["--save-rollouts", str(place / "rollouts.safetensors")]
    assert layerpick(["suggest", *few, *rollouts, "--out", str(place / "suggested")]) == 0
    options = ["--steps", "1", "--device", "cpu", *SMALL]
    run = ["train", "--layer", "3", *options, "--out", str(place / "run")]
    assert layerpick(run) == 0
    grid = ["--lr-grid", "1e-4", "--layers", "0,3,5", "--probes", "weights"]
    assert layerpick(["sweep", *options, *grid, "--out", str(place / "sweeps")]) == 0
    return place


def mutated(value: Any, generator: random.Random) -> Iterator[tuple[Any, bool]]:
    """Copies of a JSON value with one place changed, and whether each must be refused."""
    places = list(_places(value, ()))
    generator.shuffle(places)
    for path in places[:60]:
        old = _at(value, path)
        number = isinstance(old, int | float) and not isinstance(old, bool)
        free = any(part in FREE for part in path) or path[-1] == "schema_version"
        for new in NONSENSE:
            yield _with(value, path, new), number and not free
        yield _with(value, path, generator.choice(OTHERS)), False
        yield _with(value, path, ...), False


def _places(value: Any, path: tuple) -> Iterator[tuple]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        if isinstance(child, dict | list):
            yield from _places(child, (*path, key))
        else:
            yield (*path, key)


def _at(value: Any, path: tuple) -> Any:
    for part in path:
        value = value[part]
    return value


def _with(value: Any, path: tuple, new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    parent = _at(copy, path[:-1])
    if new is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = new
    return copy


def damaged(content: bytes, generator: random.Random, count: int) -> Iterator[bytes]:
    """Copies with bytes changed, cut off, doubled or put in."""
    for _ in range(count):
        where = generator.randrange(len(content))
        end = min(len(content), where + generator.randrange(1, 9))
        noise = generator.randbytes(end - where)
        yield generator.choice(
            [
                content[:where],
                content[:where] + content[end:],
                content[:where] + noise + content[end:],
                content[:end] + content[where:],
                content[:where] + b"\x00" * (end - where) + content[end:],
            ]
        )


def attempt(read: Callable[[], Any], tally: Tally, what: str) -> Any:
    """The value read, or None where it was refused with a sentence."""
    tally.cases += 1
    try:
        return read()
    except LayerpickError as error:
        assert "\n" not in str(error).strip() and str(error), (what, error)
        tally.refused += 1
        return None
    except Exception as error:
        raise AssertionError(f"a traceback for {what} (seed {SEED}): {error!r}") from error


def fuzz_json(file: Path, read: Callable[[], Any]) -> Tally:
    """Mutate a JSON file in place, and read it each time."""
    generator, tally, original = random.Random(SEED), Tally(), file.read_bytes()
    assert attempt(read, tally, str(file)) is not None
    for value, must_refuse in mutated(json.loads(original), generator):
        text = json.dumps(value)
        file.write_text(text)
        found = attempt(read, tally, f"{file.name}: {text[:2000]}")
        assert found is None or not must_refuse, (file.name, text[:2000])
    for content in damaged(original, generator, 100):
        file.write_bytes(content)
        attempt(read, tally, f"{file.name}: {content[:200]!r}")
    file.write_bytes(original)
    return tally


def read_results(folder: Path) -> object:
    """A run's description and result."""
    return RunFolder(folder).description(), RunFolder(folder).result()


def the_only_example(folder: Path) -> object:
    """Of a sweep's folder; sweeps left out with a sentence are refused."""
    loaded = load_examples([folder])
    if loaded.left_out:
        raise LayerpickError(loaded.left_out[0])
    return loaded


def test_json(made: Path, tmp_path: Path) -> None:
    total = Tally()
    shutil.copytree(made, tmp_path / "made")
    place = tmp_path / "made"
    (record,) = place.glob("sweeps/*/*/layer003*.json")
    folder = record.parent
    shutil.copytree(SHIPPED_PREDICTORS, place / "predictors")
    model = place / "model"
    shutil.copytree(REFERENCE / "math", model)
    suggestion, run = place / "suggested" / "suggestion.json", place / "run"
    cases: list[tuple[Path, Callable[[], Any]]] = [
        (record, lambda: read_folder(folder)),
        (folder / "features.json", lambda: the_only_example(folder) or True),
        (suggestion, lambda: read_suggestion(suggestion)),
        (run / "run.json", lambda: RunFolder(run).description()),
        (run / "result.json", lambda: read_results(run)),
        (place / "predictors" / "weights.json", lambda: load_predictors(place / "predictors")),
        (model / "task.json", lambda: read_defaults(model, "math")),
    ]
    for file, read in cases:
        if file.name == "features.json":
            read_it = read

            def read(read_it: Callable[[], Any] = read_it) -> Any:
                try:
                    return read_it()
                except LayerpickError as error:
                    if "cannot be read" in str(error) or "features" in str(error):
                        raise
                    return True  # a sweep this small teaches nothing; its features were read

        tally = fuzz_json(file, read)
        print(f"{file.name}: {tally}")
        total.cases += tally.cases
        total.refused += tally.refused
    print("all JSON:", total)
    assert total.cases > 2000


def test_tensors(made: Path, tmp_path: Path) -> None:
    generator, tally = random.Random(SEED), Tally()
    model = load_model(str(REFERENCE / "math"), device="cpu")
    parameter = torch.nn.Parameter(torch.randn(4, 4))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)

    save_checkpoint(tmp_path, 7, {"w": parameter}, optimizer, scheduler)
    checkpoint = Checkpoint(tmp_path / "checkpoint-7")
    delta = tmp_path / "layer_delta.safetensors"
    rollouts = tmp_path / "rollouts.safetensors"
    shutil.copy(made / "run" / delta.name, delta)
    shutil.copy(made / rollouts.name, rollouts)
    cases: list[tuple[Path, Callable[[], Any]]] = [
        (delta, lambda: read_delta(delta)),
        (rollouts, lambda: load_rollouts(rollouts, model)),
        (
            checkpoint.folder / "trained.safetensors",
            lambda: load_trained(Checkpoint(checkpoint.folder), {"w": parameter}),
        ),
        (
            checkpoint.folder / "optimizer.safetensors",
            lambda: load_optimizer(Checkpoint(checkpoint.folder), optimizer, scheduler),
        ),
    ]
    for file, read in cases:
        original = file.read_bytes()
        read()
        for content in damaged(original, generator, 250):
            if content == original:
                continue
            file.write_bytes(content)
            before = tally.refused
            attempt(read, tally, f"{file.name}, {len(content)} of {len(original)} bytes")
            assert tally.refused == before + 1, (file.name, "a damaged file was accepted")
        file.write_bytes(original)
    print("tensors:", tally)


def test_models(tmp_path: Path) -> None:
    generator, tally = random.Random(SEED), Tally()
    model = tmp_path / "model"
    shutil.copytree(REFERENCE / "math", model)

    def read() -> Any:
        return load_model(str(model), device="cpu")

    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        file = model / name
        original = file.read_bytes()
        cases = [
            json.dumps(value).encode() for value, _ in mutated(json.loads(original), generator)
        ]
        generator.shuffle(cases)
        for content in [*cases[:150], *damaged(original, generator, 30)]:
            file.write_bytes(content)
            attempt(read, tally, f"{name}: {content[:1500]!r}")
        file.write_bytes(original)
    for name in ("tokenizer.json", "model.safetensors"):
        file = model / name
        original = file.read_bytes()
        for content in damaged(original, generator, 60):
            file.write_bytes(content)
            attempt(read, tally, name)
        file.write_bytes(original)
    print("models:", tally)


def test_rows(tmp_path: Path) -> None:
    generator, tally = random.Random(SEED), Tally()
    math = {"prompt": "1 + 1 =", "answer": "2"}
    code = {"prompt": "Add.", "tests": ["assert f(1) == 2"], "entry_point": "f", "io": []}
    for task, row in (("math", math), ("code", code)):
        texts = [json.dumps(value) for value, _ in mutated(row, generator)]
        texts += [json.dumps(row), "[" * 100_000, "1" * 5000, '{"prompt": ' + "9" * 5000 + "}"]
        contents = [text.encode() for text in texts]
        contents += [json.dumps({**row, "prompt": "é"}, ensure_ascii=False).encode("latin-1")]
        contents += list(damaged(json.dumps(row).encode(), generator, 200))
        for ending in (".jsonl", ".json", ".parquet"):
            file = tmp_path / f"rows{ending}"
            for content in contents if ending == ".jsonl" else contents[-150:]:
                file.write_bytes(content)
                made_task = make_task(task, TaskSettings(dataset=str(file)))
                attempt(lambda t=made_task: t.prompts("train", 1, 0), tally, repr(content[:500]))
    print("rows:", tally)
