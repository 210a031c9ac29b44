"""The folder of one training run: settings, metrics, checkpoint, trained layer, scores.

run.json                   what the run is; the same command goes on, another is refused
metrics.jsonl              one line per step
checkpoint-N/              the newest one, while the run goes on
layer_delta.safetensors    what was trained, and what it belongs to
result.json                cost, and the scores of the base and the trained model
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerpick.training.episodes.scoring import HeldOutScore
from layerpick.training.errors import LayerpickError
from layerpick.training.files import write_text
from layerpick.training.processes import ALONE, Processes
from layerpick.training.sweeps.records import RunSettings

SCHEMA_VERSION = 1
RUN_FILE, METRICS_FILE, RESULT_FILE = "run.json", "metrics.jsonl", "result.json"
DELTA_FILE = "layer_delta.safetensors"
Kind = TypeVar("Kind", bound=BaseModel)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunDescription(_Value):
    """What a run is: equal descriptions on the same device give equal runs."""

    schema_version: int = SCHEMA_VERSION
    settings: RunSettings
    layers: tuple[int, ...] | None = Field(description="decoder layers trained; null: everything")
    learning_rate: float
    seed: int
    micro_batch: int | None
    gradient_checkpointing: bool
    vllm: str | None
    trl: dict[str, Any] = Field(description="further fields of GRPOConfig")
    boosted: tuple[int, ...] = Field(default=(), description="layers at a multiple of the rate")
    boost_factor: float = Field(default=1.0, description="that multiple")


class StepMetrics(_Value):
    """What one step did and took."""

    step: int = Field(description="steps done, this one included")
    sampling_seconds: float = Field(description="rollouts and rewards")
    update_seconds: float = Field(description="everything else")
    trainable_parameters: int
    optimizer_bytes: int
    values: dict[str, Any] = Field(description="TRL's metrics, under TRL's names")


class TrainingCost(_Value):
    """What a run took."""

    steps: int
    trainable_parameters: int
    optimizer_bytes: int
    sampling_seconds: float
    update_seconds: float
    tokens: float = Field(description="tokens read and written, as TRL counts them")


class PolicyScore(_Value):
    """Score on held-out prompts."""

    mean: float
    error: float = Field(description="standard error over prompts")
    by_prompt: tuple[float, ...]
    cut: float | None = Field(default=None, description="share of completions cut off")

    @classmethod
    def of(cls, score: HeldOutScore) -> PolicyScore:
        """The same score as a record."""
        return cls(mean=score.mean, error=score.error, by_prompt=score.by_prompt, cut=score.cut)


class RunResult(_Value):
    """What came of a run."""

    schema_version: int = SCHEMA_VERSION
    cost: TrainingCost
    base: PolicyScore
    trained: PolicyScore
    full_parameters: int = Field(description="parameters of the model")
    chosen: str | None = Field(default=None, description="how the layers were chosen")
    device: str
    versions: dict[str, str]


class RunFolder:
    """One run's files."""

    def __init__(self, path: Path, group: Processes = ALONE):
        """In a group of processes the first one writes, and all read."""
        self.path = path
        self._group = group

    def open(self, description: RunDescription) -> None:
        """Start the folder, or go on in it.

        Raises LayerpickError when it holds a run with other settings, naming the first of them.
        """
        file = self.path / RUN_FILE
        if self._group.first and not file.exists():
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
        for leftover in self.path.glob(".*-*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
        lines = [step.model_dump_json() for step in steps if step.step <= steps_done]
        write_text(self.path / METRICS_FILE, "".join(f"{line}\n" for line in lines))

    def append(self, step: StepMetrics) -> None:
        """Add one step's line."""
        if not self._group.first:
            return
        with (self.path / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(step.model_dump_json() + "\n")

    def metrics(self) -> list[StepMetrics]:
        """All steps, in order; a line that a kill has cut short ends them.

        All processes of a group must ask.
        """
        self._group.wait()
        file = self.path / METRICS_FILE
        steps: list[StepMetrics] = []
        for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
            try:
                steps.append(StepMetrics.model_validate_json(line))
            except ValidationError:
                break
        return steps

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
        return _read(self.path / RUN_FILE, RunDescription)

    def result(self) -> RunResult | None:
        """What came of it, once it is done."""
        file = self.path / RESULT_FILE
        return _read(file, RunResult) if file.is_file() else None

    def finish(self, result: RunResult) -> None:
        """Write the result; the checkpoint has done its service."""
        if not self._group.first:
            return
        write_text(self.path / RESULT_FILE, result.model_dump_json(indent=1) + "\n")
        for checkpoint in self.path.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _read(file: Path, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise LayerpickError(
            f"{file.parent} is not the folder of a run: it has no {file.name}."
        ) from None
    except ValidationError as error:
        raise LayerpickError(
            f"{file} was not written by this version of layerpick ({error.errors()[0]['msg']})."
        ) from error


def _plain(value: Any) -> Any:
    """A value as JSON would give it back."""
    return json.loads(json.dumps(value))
