"""Where a task's rows come from: a Hub data set, a local file, or a generator.

Every source can be split into `train` and `heldout` without overlap. Hub data sets with a test or
validation split keep theirs; everything else is split by a hash of the prompt, one in five held
out, so that the same question is never on both sides, whatever the seed.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerpick.training.episodes.trajectory import hash_text
from layerpick.training.errors import LayerpickError
from layerpick.training.reading import read_json, reading, reason_of
from layerpick.training.tasks.base import Prompt, Split

HELDOUT_ONE_IN = 5
QUESTIONS = ("prompt", "question", "problem", "text")
"""Columns that may hold what is asked, the first that is there."""
GENERATOR_PREFIX = "reasoning-gym:"


@dataclass(frozen=True)
class Row:
    """One record of a data set."""

    columns: Mapping[str, Any]
    source: str
    """`file:line`, `dataset[index]` or `generator[index]`, for error messages."""


class RowSource(ABC):
    """Rows that can be drawn by split and seed."""

    @abstractmethod
    def draw(self, split: Split, count: int, seed: int) -> tuple[Row, ...]:
        """`count` different rows, the same for the same seed. Raises LayerpickError if too few."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Identity of the data."""


def split_of(text: str) -> Split:
    """The split a question belongs to when its source has no split of its own."""
    digest = int(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), 16)
    return "heldout" if digest % HELDOUT_ONE_IN == 0 else "train"


def open_rows(spec: str) -> RowSource:
    """The source that a `--dataset` value names."""
    if spec.startswith(GENERATOR_PREFIX):
        return GeneratedRows.parse(spec)
    if Path(spec).suffix in _READERS or Path(spec).is_file():
        return StoredRows.from_file(Path(spec))
    return StoredRows.from_hub(spec)


def as_prompts(rows: Sequence[Row], make: Callable[[Row], Prompt]) -> tuple[Prompt, ...]:
    """What a task makes of rows. Raises LayerpickError, naming the row, for one of odd types."""
    prompts = []
    for row in rows:
        with reading(row.source, "a row of this task", _MEND):
            prompts.append(make(row))
    return tuple(prompts)


def parse_options(spec: str) -> tuple[str, dict[str, Any]]:
    """Split `NAME?a=1&b=true` into its name and options; values are read as JSON where they can.

    Raises LayerpickError for an option without a value.
    """
    name, _, query = spec.partition("?")
    options: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise LayerpickError(f"The option '{pair}' in '{spec}' is not of the form name=value.")
        try:
            options[key] = json.loads(value)
        except (ValueError, RecursionError):
            options[key] = value
    return name, options


@dataclass(frozen=True)
class StoredRows(RowSource):
    """Rows held in memory, each already assigned to a split."""

    name: str
    by_split: Mapping[Split, tuple[Row, ...]]

    def draw(self, split: Split, count: int, seed: int) -> tuple[Row, ...]:
        """A random subset, in random order."""
        rows = self.by_split[split]
        if count > len(rows):
            raise LayerpickError(
                f"{self.name} has {len(rows)} rows in its {split} split and {count} were asked "
                f"for: ask for at most {len(rows)} prompts, or give more rows."
            )
        order = np.random.default_rng(seed).permutation(len(rows))[:count]
        return tuple(rows[index] for index in order)

    def fingerprint(self) -> str:
        """Hash of all rows' contents, in order."""
        columns = [dict(row.columns) for rows in self.by_split.values() for row in rows]
        return hash_text(json.dumps(columns, sort_keys=True, default=str))

    @classmethod
    def from_file(cls, path: Path) -> StoredRows:
        """Read a .jsonl, .json (a list) or .parquet file."""
        if not path.is_file():
            raise LayerpickError(f"The data set {path} does not exist.")
        reader = _READERS.get(path.suffix)
        if reader is None:
            raise LayerpickError(
                f"The data set {path} is a '{path.suffix}' file; give one of "
                f"{', '.join(sorted(_READERS))}."
            )
        return cls(str(path), _split_by_hash(reader(path)))

    @classmethod
    def from_hub(cls, spec: str) -> StoredRows:
        """Download a data set from the Hugging Face Hub: `owner/name` or `owner/name:config`."""
        name, _, config = spec.partition(":")
        splits = _load_hub(name, config or None)
        rows = {
            split: tuple(
                Row(columns, f"{name}[{split}][{index}]") for index, columns in enumerate(part)
            )
            for split, part in splits.items()
        }
        heldout = next((rows[key] for key in ("test", "validation") if key in rows), None)
        train = rows.get("train", ())
        if heldout is None or not train:
            return cls(name, _split_by_hash([row for part in rows.values() for row in part]))
        return cls(name, {"train": train, "heldout": heldout})


@dataclass(frozen=True)
class GeneratedRows(RowSource):
    """Problems made by reasoning-gym: `reasoning-gym:NAME?option=value&…`."""

    name: str
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, spec: str) -> GeneratedRows:
        """Check the generator's name and options by making one problem."""
        name, options = parse_options(spec.removeprefix(GENERATOR_PREFIX))
        source = cls(name, options)
        source._problems(size=1, seed=0)
        return source

    def draw(self, split: Split, count: int, seed: int) -> tuple[Row, ...]:
        """Different problems; gives up when the generator repeats itself too often."""
        problems = self._problems(size=20 * HELDOUT_ONE_IN * count + 1000, seed=seed)
        chosen: dict[str, Row] = {}
        for index in range(len(problems)):
            problem = problems[index]
            question = problem["question"]
            if split_of(question) == split and question not in chosen:
                columns = {**problem["metadata"], "prompt": question, "answer": problem["answer"]}
                chosen[question] = Row(columns, f"{GENERATOR_PREFIX}{self.name}[{index}]")
                if len(chosen) == count:
                    return tuple(chosen.values())
        raise LayerpickError(
            f"{GENERATOR_PREFIX}{self.name} made only {len(chosen)} different problems for the "
            f"{split} split and {count} were asked for: ask for fewer, or widen its options."
        )

    def fingerprint(self) -> str:
        """Hash of the generator's name and options."""
        return hash_text(json.dumps([self.name, dict(self.options)], sort_keys=True))

    def _problems(self, size: int, seed: int) -> Any:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        if self.name not in DATASETS:
            raise LayerpickError(
                f"reasoning-gym has no generator '{self.name}'; it has "
                f"{', '.join(sorted(DATASETS))}."
            )
        try:
            return reasoning_gym.create_dataset(self.name, size=size, seed=seed, **self.options)
        except Exception as error:  # a generator's own
            raise LayerpickError(
                f"reasoning-gym refused the options {dict(self.options)} of '{self.name}': "
                f"{reason_of(error)}."
            ) from error


def _split_by_hash(rows: list[Row]) -> dict[Split, tuple[Row, ...]]:
    parts: dict[Split, list[Row]] = {"train": [], "heldout": []}
    for row in rows:
        parts[split_of(str(asked(row.columns) or dict(row.columns)))].append(row)
    return {split: tuple(part) for split, part in parts.items()}


def asked(columns: Mapping[str, Any], names: Sequence[str] = QUESTIONS) -> Any:
    """What a row asks, in the first of these columns or in SVAMP's two; None where nowhere."""
    found = next((columns[name] for name in names if columns.get(name)), None)
    if found is None and {"Body", "Question"} <= columns.keys():
        body = str(columns["Body"]).strip()
        return f"{body if body.endswith('.') else body + '.'} {columns['Question']}"
    return found


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                source = f"{path}:{number}"
                with reading(source, "JSON", _MEND):
                    columns = json.loads(line.decode("utf-8"))
                rows.append(_row(columns, source))
    return rows


def _read_json(path: Path) -> list[Row]:
    records = read_json(path, "JSON", _MEND)
    if not isinstance(records, list):
        raise LayerpickError(f"{path} holds no list of rows.")
    return [_row(columns, f"{path}[{index}]") for index, columns in enumerate(records)]


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow.parquet

    with reading(path, "a Parquet file", "mend it, or give another"):
        records = pyarrow.parquet.read_table(path).to_pylist()
    return [_row(columns, f"{path}:{index + 1}") for index, columns in enumerate(records)]


def _row(columns: Any, source: str) -> Row:
    if not isinstance(columns, dict):
        raise LayerpickError(f"{source} is not a record with named columns.")
    with reading(source, "text", _MEND):  # half of a surrogate pair is none
        json.dumps(columns, ensure_ascii=False, default=str).encode("utf-8")
    return Row(columns, source)


_MEND = "mend it, or take it out"
_READERS = {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}


def _load_hub(name: str, config: str | None) -> Any:
    import datasets

    try:
        if config is None:
            configs = datasets.get_dataset_config_names(name)
            config = next((c for c in ("main", "default", "full") if c in configs), configs[0])
        return datasets.load_dataset(name, config)
    except Exception as error:  # a library's
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise LayerpickError(
            f"The data set '{name}' is neither a local file nor could it be loaded from the "
            f"Hugging Face Hub ({reason}); give a local file with --dataset FILE, or a generator "
            f"such as --dataset reasoning-gym:chain_sum."
        ) from error
