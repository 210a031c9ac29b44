"""The folder of one training run: settings, metrics, checkpoint, trained layer, scores.

run.json                   what the run is; the same command goes on, another is refused
metrics.jsonl              one line per step
checkpoint-N/              the newest one, while the run goes on
layer_delta.safetensors    what was trained, and what it belongs to
result.json                cost, and the scores of the base and the trained model
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from layerpick.training.episodes.scoring import HeldOutScore
from layerpick.training.errors import LayerpickError
from layerpick.training.files import write_text, writing
from layerpick.training.processes import ALONE, Processes
from layerpick.training.reading import read_record
from layerpick.training.runs.lines import append_line, read_lines, write_lines
from layerpick.training.sweeps.records import RunSettings
from layerpick.training.values import Count, Index, NonNegative, Number, Positive, Record, Share

SCHEMA_VERSION = 1
RUN_FILE, METRICS_FILE, RESULT_FILE = "run.json", "metrics.jsonl", "result.json"
DELTA_FILE = "layer_delta.safetensors"
_LOCK_FILE = ".lock"
_OTHER_FOLDER = "give the run a folder of its own with --out"


class RunDescription(Record):
    """What a run is: equal descriptions on the same device give equal runs."""

    schema_version: int = SCHEMA_VERSION
    settings: RunSettings
    layers: tuple[Index, ...] | None = Field(description="decoder layers trained; null: everything")
    learning_rate: Positive
    seed: Count
    micro_batch: int | None
    gradient_checkpointing: bool
    vllm: str | None
    trl: dict[str, Any] = Field(description="further fields of GRPOConfig")
    boosted: tuple[Index, ...] = Field(default=(), description="layers at a multiple of the rate")
    boost_factor: Positive = Field(default=1.0, description="that multiple")

    @property
    def identity(self) -> str:
        """SHA-256 of it (64 hex digits)."""
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class StepMetrics(Record):
    """What one step did and took."""

    step: Count = Field(description="steps done, this one included")
    sampling_seconds: NonNegative = Field(description="rollouts and rewards")
    update_seconds: NonNegative = Field(description="everything else")
    trainable_parameters: Count
    optimizer_bytes: Count
    values: dict[str, Any] = Field(description="TRL's metrics, under TRL's names")


class TrainingCost(Record):
    """What a run took."""

    steps: Count
    trainable_parameters: Count
    optimizer_bytes: Count
    sampling_seconds: NonNegative
    update_seconds: NonNegative
    tokens: NonNegative = Field(description="tokens read and written, as TRL counts them")


class PolicyScore(Record):
    """Score on held-out prompts."""

    mean: Number
    error: NonNegative = Field(description="standard error over prompts")
    by_prompt: tuple[Number, ...] = Field(min_length=2)
    cut: Share | None = Field(default=None, description="share of completions cut off")

    @classmethod
    def of(cls, score: HeldOutScore) -> PolicyScore:
        """The same score as a record."""
        return cls(mean=score.mean, error=score.error, by_prompt=score.by_prompt, cut=score.cut)


class RunResult(Record):
    """What came of a run."""

    schema_version: int = SCHEMA_VERSION
    cost: TrainingCost
    base: PolicyScore
    trained: PolicyScore
    full_parameters: Count = Field(description="parameters of the model")
    chosen: str | None = Field(default=None, description="how the layers were chosen")
    reward: str | None = Field(default=None, description="a reward function of the user's own")
    device: str
    versions: dict[str, str]
    run: str | None = Field(default=None, description="SHA-256 of the run's description")
    delta: str | None = Field(default=None, description="checksum of the trained layer")


class RunFolder:
    """One run's files."""

    def __init__(self, path: Path, group: Processes = ALONE):
        """In a group of processes the first one writes, and all read."""
        self.path = path
        self._group = group

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out until the block ends; a lock that dies with its holder.

        Raises LayerpickError when another one is at work in the folder.
        """
        from filelock import FileLock, Timeout

        if not self._group.first:
            yield
            return
        lock = FileLock(self.path / _LOCK_FILE, timeout=0)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                raise LayerpickError(
                    f"Another process is training in {self.path}: wait for it, or use another "
                    f"--out."
                ) from None
        try:
            yield
        finally:
            lock.release()

    def open(self, description: RunDescription) -> None:
        """Start the folder, or go on in it.

        Raises LayerpickError when it holds a run with other settings, naming the first of them, or
        files of a run and nothing that says what it was.
        """
        file = self.path / RUN_FILE
        if self._group.first and not file.exists():
            strays = [self.path / name for name in (RESULT_FILE, METRICS_FILE, DELTA_FILE)]
            strays += self.path.glob("checkpoint-*")
            for stray in filter(Path.exists, strays):
                raise LayerpickError(
                    f"{stray} belongs to a run that has lost its {RUN_FILE}: move it away, or use "
                    f"another --out."
                )
            write_text(file, description.model_dump_json(indent=1) + "\n")
        self._group.wait()
        stored = self.description()
        unequal = description.settings.differences(stored.settings)
        for name in (name for name in type(description).model_fields if name != "settings"):
            pair = _plain(getattr(description, name)), _plain(getattr(stored, name))
            if pair[0] != pair[1]:
                unequal[name] = pair
        for name, (value, found) in unequal.items():
            raise LayerpickError(
                f"{self.path} holds a run with {name} = {found!r}, not {value!r}: "
                f"use the same settings to go on with it, or another --out."
            )

    def begin(self, steps_done: int) -> None:
        """Forget what a killed run had done after its last checkpoint."""
        steps = self.metrics()
        if not self._group.first:
            return
        # The folder may be one that a person keeps other things in.
        for name in ("checkpoint-*", RUN_FILE, RESULT_FILE, METRICS_FILE, DELTA_FILE):
            for leftover in self.path.glob(f".{name}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        kept = (step for step in steps if step.step <= steps_done)
        write_lines(self.path / METRICS_FILE, kept)

    def append(self, step: StepMetrics) -> None:
        """Add one step's line."""
        if self._group.first:
            append_line(self.path / METRICS_FILE, step)

    def metrics(self) -> list[StepMetrics]:
        """All steps, in order; a line that a kill has cut short ends them.

        All processes of a group must ask.
        """
        self._group.wait()
        return read_lines(self.path / METRICS_FILE, StepMetrics)

    def cost(self) -> TrainingCost:
        """Sums over all steps."""
        steps = self.metrics()
        last = steps[-1]
        return TrainingCost(
            steps=last.step,
            trainable_parameters=last.trainable_parameters,
            optimizer_bytes=last.optimizer_bytes,
            sampling_seconds=sum(step.sampling_seconds for step in steps),
            update_seconds=sum(step.update_seconds for step in steps),
            tokens=last.values.get("num_tokens", 0.0),
        )

    def description(self) -> RunDescription:
        """What the run is. Raises LayerpickError for a folder that holds none."""
        file = self.path / RUN_FILE
        if not file.is_file():
            raise LayerpickError(f"{self.path} is not the folder of a run: it has no {RUN_FILE}.")
        return read_record(file, RunDescription, "the description of a run", _OTHER_FOLDER)

    def result(self) -> RunResult | None:
        """What came of it, once it is done. Raises LayerpickError for another run's result."""
        file = self.path / RESULT_FILE
        if not file.is_file():
            return None
        result = read_record(file, RunResult, "the result of a run", _OTHER_FOLDER)
        if result.run not in (None, self.description().identity):
            raise LayerpickError(
                f"{file} is the result of another run than {self.path / RUN_FILE} describes: "
                f"{_OTHER_FOLDER}."
            )
        return result

    def finish(self, result: RunResult) -> None:
        """Write the result; the checkpoint has done its service."""
        if not self._group.first:
            return
        write_text(self.path / RESULT_FILE, result.model_dump_json(indent=1) + "\n")
        for checkpoint in self.path.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)

    def forget(self) -> None:
        """Take the result and what led to it away, so that the run begins anew.

        All processes of a group must ask, once they have read what they need.
        """
        self._group.wait()
        if self._group.first:
            for name in (RESULT_FILE, DELTA_FILE, METRICS_FILE):
                (self.path / name).unlink(missing_ok=True)
        self._group.wait()


def _plain(value: Any) -> Any:
    """A value as JSON would give it back."""
    return json.loads(json.dumps(value))
