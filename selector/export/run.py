"""From a suggestion or a run to the files that another trainer needs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layerpick.selector.export.plan import LayerNames, Plan, layer_names
from layerpick.selector.export.table import find_target
from layerpick.selector.suggestion.result import Suggestion, read_suggestion
from layerpick.training.engine.loop import step_seed
from layerpick.training.episodes.rendering import Renderer
from layerpick.training.errors import LayerpickError
from layerpick.training.files import write_text
from layerpick.training.models.defaults import read_defaults, with_defaults
from layerpick.training.models.rates import usual_rate
from layerpick.training.models.sources import ModelFolder, locate
from layerpick.training.runs.delta import read_delta
from layerpick.training.runs.folder import RunDescription, RunFolder
from layerpick.training.tasks.base import SingleTurnTask
from layerpick.training.tasks.forms import with_form
from layerpick.training.tasks.settings import TaskSettings
from layerpick.training.tasks.table import make_task

STEPS, PROMPTS = 60, 16
"""Of a suggestion, which is about no run in particular: `layerpick train`'s own."""
OTHER_SETTINGS = (
    "A template, stop strings or a reward of your own were used, whose names alone are kept: "
    "data/train.jsonl and reward.py have the task's usual ones."
)
MOST_STEPS = 1000
"""Whose rows are written out."""


@dataclass(frozen=True)
class Exported:
    """What was written, and what a person should know."""

    target: str
    plan: Plan
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def export(
    what: Path,
    to: str,
    *,
    layer: str | None = None,
    out: Path | None = None,
    base: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Exported:
    """Write what the trainer `to` needs to train the layers of a suggestion or run.

    `layer` names others, as `3` or `3,4`; `base` is where the model is now, if it has moved.
    Raises LayerpickError for whatever the user can mend.
    """
    target = find_target(to)
    source = read_suggestion(what) if what.is_file() else RunFolder(what).description()
    name, revision = _model(what, source)
    folder = locate(
        base or name,
        None if base else revision,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    names = layer_names(
        folder, layer or _layers(source), _ranking(source), trust_remote_code=trust_remote_code
    )
    plan = _plan(source, folder, names, picked=layer in (None, "auto"))
    if layer is not None:
        plan = replace(plan, reason=f"Chosen by --layer {layer}.")
    notes: tuple[str, ...] = ()
    if target.WANTS_ROWS:
        plan, notes = _with_rows(plan, source, folder, trust_remote_code)
    place = out or (what if what.is_dir() else what.parent) / "export" / to
    texts = {place / name: text for name, text in target.files(plan).items()}
    for path, text in texts.items():
        write_text(path, text)
    return Exported(to, plan, tuple(texts), notes)


def _model(what: Path, source: Suggestion | RunDescription) -> tuple[str, str | None]:
    if isinstance(source, Suggestion):
        return source.model.id, source.model.revision
    _, origin = read_delta(what)
    return origin.base_model, origin.revision


def _layers(source: Suggestion | RunDescription) -> str:
    if isinstance(source, Suggestion):
        return "auto"
    if source.layers is None:
        raise LayerpickError("The run trained all parameters: name layers to export with --layer.")
    return ",".join(map(str, source.layers))


def _ranking(source: Suggestion | RunDescription) -> tuple[int, ...] | None:
    if isinstance(source, Suggestion):
        return tuple(layer.layer for layer in source.ranked)
    return None


def _plan(
    source: Suggestion | RunDescription, folder: ModelFolder, names: LayerNames, *, picked: bool
) -> Plan:
    """Everything but the rows; a suggestion's rate is advised for the layer that it has picked."""
    defaults = read_defaults(folder.path, _task(source))
    shared: dict[str, Any] = {
        "model": folder.name if folder.revision else str(folder.path),
        "revision": folder.revision,
        "names": names,
        "task": _task(source),
    }
    if isinstance(source, Suggestion):
        first, rollouts = source.layers[source.pick], source.rollouts
        advised = source.learning_rate if picked else None
        return Plan(
            **shared,
            reason=f"Suggested by layerpick: predicted contribution {first.predicted:.2f} "
            f"({first.interval[0]:.2f} … {first.interval[1]:.2f}), chance of being the best layer "
            f"{first.chance_best:.0%}.",
            algorithm=source.task.algorithm,
            learning_rate=advised or defaults.learning_rate or usual_rate(names.size),
            steps=STEPS,
            prompts=PROMPTS,
            group_size=rollouts.group_size,
            max_new_tokens=rollouts.max_new_tokens,
            temperature=rollouts.temperature,
        )
    settings = source.settings
    return Plan(
        **shared,
        reason="The layers of a run that `layerpick train` has made, with its settings.",
        algorithm=settings.algorithm,
        learning_rate=source.learning_rate,
        steps=settings.steps,
        prompts=settings.prompts,
        group_size=settings.group_size,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        beta=settings.beta,
    )


def _task(source: Suggestion | RunDescription) -> str:
    return source.task.name if isinstance(source, Suggestion) else source.settings.task


def _with_rows(
    plan: Plan, source: Suggestion | RunDescription, folder: ModelFolder, trust_remote_code: bool
) -> tuple[Plan, tuple[str, ...]]:
    """The plan with the rows that a run of `layerpick train` asks, in its order; or why not."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder.path, trust_remote_code=trust_remote_code)
    about = source.task if isinstance(source, Suggestion) else source.settings
    defaults = with_defaults(
        TaskSettings(dataset=about.source), read_defaults(folder.path, plan.task)
    )
    task = make_task(plan.task, defaults)
    task = type(task)(with_form(task, tokenizer))
    if not isinstance(task, SingleTurnTask):
        return plan, ()
    chosen = task.settings
    plan = replace(plan, stop=chosen.stop, chat_template_kwargs=dict(chosen.chat_template_kwargs))
    if task.fingerprint() != about.data_hash:
        return plan, (f"{about.source} is not what it was: data/train.jsonl is empty.",)
    renderer = Renderer.of(tokenizer, task)
    rows = [
        {
            "prompt": renderer.as_trl_reads(prompt),
            "row": json.dumps([prompt.content, dict(prompt.columns)], default=str),
        }
        for step in range(min(plan.steps, MOST_STEPS))
        for prompt in task.prompts("train", plan.prompts, step_seed(source.seed, step))
    ]
    notes = () if chosen.identity == _settings_hash(source) else (OTHER_SETTINGS,)
    return replace(plan, rows=tuple(rows)), notes


def _settings_hash(source: Suggestion | RunDescription) -> str | None:
    if isinstance(source, Suggestion):
        return source.task.settings_hash
    return source.settings.task_settings_hash
