"""How a model wants to be asked: `task.json` beside its weights, and the built-in models.

The built-in reference models were trained on prompts of one form; their folder says which, so
that `layerpick suggest` with no model named asks them that way. Any local model folder can do
the same. What a person gives on the command line always wins.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass

from layerpick.training.errors import LayerpickError
from layerpick.training.reading import reading
from layerpick.training.tasks.base import TaskSettings
from layerpick.training.values import Positive

REFERENCE = Path(__file__).parents[1] / "reference"
DEFAULTS_FILE = "task.json"


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class TaskDefaults:
    """Settings that suit a model; None leaves the tool's own default."""

    task: str | None = None
    dataset: str | None = None
    template: str | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    env: str | None = None
    max_turns: Annotated[int, Field(ge=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Positive | None = None
    learning_rate: Positive | None = None
    """Rate of the reference sweep of this model."""


def reference_model(task: str) -> str:
    """Folder of the built-in model for a task. Raises LayerpickError if there is none."""
    folder = REFERENCE / task
    if not (folder / "config.json").is_file():
        raise LayerpickError(f"There is no built-in model for the task '{task}': name a MODEL.")
    return str(folder)


def read_defaults(folder: Path, task: str) -> TaskDefaults:
    """The model's own defaults for a task; empty if it has none.

    A data set file named there is relative to the folder. Raises LayerpickError for a broken file.
    """
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return TaskDefaults()
    known = ", ".join(field.name for field in fields(TaskDefaults))
    with reading(path, "a model's defaults", f"it may hold only {known}, each of its own type"):
        defaults = TypeAdapter(TaskDefaults).validate_json(path.read_bytes())
    if defaults.task != task:
        return TaskDefaults()
    if defaults.dataset and (folder / defaults.dataset).is_file():
        return replace(defaults, dataset=str(folder / defaults.dataset))
    return defaults


def with_defaults(settings: TaskSettings, defaults: TaskDefaults) -> TaskSettings:
    """Fill in what a person left open.

    With a data set or world of the person's own, the model's template and stop strings still
    hold: they are about the model's form, not the data's; name others to replace them.
    """
    return replace(
        settings,
        dataset=settings.dataset or defaults.dataset,
        template=settings.template if settings.template is not None else defaults.template,
        stop=settings.stop or defaults.stop,
        env=settings.env or defaults.env,
        max_turns=settings.max_turns or defaults.max_turns,
    )
