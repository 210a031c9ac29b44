"""What a person chose, completed by the model's and the task's defaults, and loaded.

Every command that needs a model and a task begins here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from layerpick.training.episodes.play import SamplingSettings, context_length
from layerpick.training.errors import LayerpickError
from layerpick.training.models.defaults import read_defaults, reference_model, with_defaults
from layerpick.training.models.loading import LoadedModel, load_model
from layerpick.training.tasks.base import Task, TaskSettings
from layerpick.training.tasks.forms import with_form
from layerpick.training.tasks.table import make_task


@dataclass(frozen=True)
class ModelChoice:
    """Which model, and how it may be loaded; the fields of `load_model`."""

    name: str | None = None
    """Hub id, folder or .gguf file; None is the built-in model of the task."""
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    pad_token: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True)
class RolloutChoice:
    """How much is sampled; None takes the model's or the task's default."""

    prompts: int = 64
    group_size: int = 8
    max_new_tokens: int | None = None
    temperature: float | None = None
    rows: int = 64
    reuse: Path | None = None
    save: Path | None = None
    also: Path | None = None
    """Rollouts of the same weights on another task, to compare gradients with."""


@dataclass(frozen=True)
class Prepared:
    """A loaded model with the task and sampling settings that suit it."""

    model: LoadedModel
    task: Task
    sampling: SamplingSettings


def prepare(
    choice: ModelChoice, task_name: str, settings: TaskSettings, rollouts: RolloutChoice
) -> Prepared:
    """Load the model and complete the settings by its defaults and the task's."""
    make_task(task_name, settings)  # a wrong task should not wait for the model to load
    model = load_model(
        choice.name or reference_model(task_name),
        revision=choice.revision,
        dtype=choice.dtype,
        device=choice.device,
        pad_token=choice.pad_token,
        allow_pickle=choice.allow_pickle,
        trust_remote_code=choice.trust_remote_code,
    )
    defaults = read_defaults(model.folder, task_name)
    task = make_task(task_name, with_defaults(settings, defaults))
    task = type(task)(with_form(task, model.tokenizer))
    temperature = next(
        value for value in (rollouts.temperature, defaults.temperature, 1.0) if value is not None
    )
    if temperature <= 0:
        raise LayerpickError("--temperature must be above 0: RL needs completions that differ.")
    sampling = SamplingSettings(
        max_new_tokens=rollouts.max_new_tokens
        or defaults.max_new_tokens
        or default_length(task, context_length(model)),
        temperature=temperature,
        stop=task.settings.stop,
        rows=rollouts.rows,
    )
    return Prepared(model, task, sampling)


def default_length(task: Task, context: int) -> int:
    """Longest turn, in tokens: the task's own for its form, at most half the context."""
    chat = task.settings.chat_template is not None
    return min(task.max_chat_tokens if chat else task.max_new_tokens, context // 2)
