"""What a person chose, completed by the model's and the task's defaults, and loaded.

Every command that needs a model and a task begins here.
"""

from __future__ import annotations

from dataclasses import dataclass

from layerpick.selector.settings import ModelChoice, SamplingChoice
from layerpick.training.episodes.play import SamplingSettings, context_length
from layerpick.training.errors import LayerpickError
from layerpick.training.models.defaults import read_defaults, reference_model, with_defaults
from layerpick.training.models.loading import LoadedModel, load_model
from layerpick.training.models.rates import usual_rate
from layerpick.training.tasks.base import Task
from layerpick.training.tasks.forms import with_form
from layerpick.training.tasks.settings import TaskSettings
from layerpick.training.tasks.table import make_task


@dataclass(frozen=True)
class Prepared:
    """A loaded model with the task and sampling settings that suit it."""

    model: LoadedModel
    task: Task
    sampling: SamplingSettings


def prepare(
    choice: ModelChoice, task_name: str, settings: TaskSettings, sampling: SamplingChoice
) -> Prepared:
    """Load the model and complete the settings by its defaults and the task's."""
    make_task(task_name, settings)  # a wrong task should not wait for the model to load
    model = load_model(
        choice.model or reference_model(task_name),
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
        value for value in (sampling.temperature, defaults.temperature, 1.0) if value is not None
    )
    if temperature <= 0:
        raise LayerpickError("--temperature must be above 0: RL needs completions that differ.")
    complete = SamplingSettings(
        max_new_tokens=sampling.max_new_tokens
        or defaults.max_new_tokens
        or default_length(task, context_length(model)),
        temperature=temperature,
        stop=task.settings.stop,
        rows=sampling.batch_size,
    )
    return Prepared(model, task, complete)


def default_length(task: Task, context: int) -> int:
    """Longest turn, in tokens: the task's own for its form, at most half the context."""
    chat = task.settings.chat_template is not None
    return min(task.max_chat_tokens if chat else task.max_new_tokens, context // 2)


def default_rate(prepared: Prepared) -> float:
    """The rate that the model's folder names, or the middle one of those for its size."""
    own = read_defaults(prepared.model.folder, prepared.task.name).learning_rate
    return own or usual_rate(sum(p.numel() for p in prepared.model.model.parameters()))
