"""The form in which a model is asked: what stands around each raw row of a task's data.

* A template, the person's own or that of the model's `task.json`, is used as it is.
* Where the tokenizer has a chat template, a row becomes a user's message that ends with the
  task's instruction, after a system's message if one is given. Thinking is turned off where the
  template has a switch for it: rollouts of thousands of tokens are seldom what is wanted first.
* Any other model reads the task's plain form, which asks for the same and stops where the next
  question would begin.

Rows that are chats already are used as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jinja2.exceptions import TemplateError

from layerpick.training.episodes.trajectory import hash_text
from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.base import Task, TaskSettings

THINKING_SWITCHES = ("enable_thinking", "thinking")
"""What chat templates call it; Qwen3, SmolLM3 and GLM the first, DeepSeek and Granite the other."""
USUAL_VALUES = {**dict.fromkeys(THINKING_SWITCHES, False), "date_string": "26 Jul 2024"}
"""What chat templates are given where it changes what they write. Llama 3's would write today's
date otherwise, and tomorrow's prompts would be others; the date is the one it falls back to."""
_ASKED = {"role": "user", "content": "1 + 1?"}
MARK = "\u2063reply\u2063"
"""Stands for the model's own words while a chat template is rendered; no real text holds it."""
_REFUSALS = (TemplateError, TypeError, ValueError, AttributeError, KeyError)
"""What a chat template raises for messages that it was not made for."""


def with_form(task: Task, tokenizer: Any) -> TaskSettings:
    """The task's settings, completed by the form that suits the task and the tokenizer.

    Raises LayerpickError for a system's message or an instruction that the form has no place for.
    """
    settings = task.settings
    if settings.template is not None:
        return _template_form(settings)
    if task.conversational and getattr(tokenizer, "chat_template", None):
        return _chat_form(task, tokenizer)
    return _plain_form(task)


def _template_form(settings: TaskSettings) -> TaskSettings:
    for option in ("system", "instruction"):
        if getattr(settings, option):
            raise LayerpickError(
                f"A template is the whole prompt, so --{option} has no place beside it: write it "
                f"into --template, or leave it out."
            )
    return replace(settings, instruction=None)


def _chat_form(task: Task, tokenizer: Any) -> TaskSettings:
    settings = task.settings
    given = settings.chat_template_kwargs
    return replace(
        settings,
        instruction=task.instruction if settings.instruction is None else settings.instruction,
        chat_template_kwargs={**usual_values(tokenizer, given), **given},
        chat_template=hash_text(str(tokenizer.chat_template)),
    )


def _plain_form(task: Task) -> TaskSettings:
    settings = task.settings
    if settings.system is not None:
        raise LayerpickError(
            "--system is for models with a chat template, and this one has none: write the whole "
            "prompt with --template."
        )
    stop = settings.stop or task.plain_stop
    if task.plain_form is None:
        if settings.instruction:
            raise LayerpickError(
                f"--instruction: a model without a chat template continues the {task.name} task's "
                f"prompts, so nothing can follow them; write the whole prompt with --template."
            )
        return replace(settings, instruction=None, stop=stop)
    instruction = task.instruction if settings.instruction is None else settings.instruction
    line = f"{instruction}\n" if instruction else ""
    template = task.plain_form.replace("{instruction}\n", line)
    return replace(settings, template=template, instruction=None, stop=stop)


def usual_values(tokenizer: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `USUAL_VALUES` that change what the chat template writes, and are not given."""
    left = {name: value for name, value in USUAL_VALUES.items() if name not in given}
    plain = render_chat(tokenizer, [_ASKED], "a question", given)
    return {
        name: value
        for name, value in left.items()
        if render_chat(tokenizer, [_ASKED], "a question", {**given, name: value}) != plain
    }


def closing_token(tokenizer: Any) -> int | None:
    """The special token that the chat template puts after the model's words, if it does.

    A chat ends its turns with it; base models whose tokenizer brings a chat template name another
    token as their end.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    chat = [_ASKED, {"role": "assistant", "content": MARK}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except _REFUSALS:
        return None
    after = tokenizer(text.rpartition(MARK)[2].lstrip(), add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder
    return after[0] if after and after[0] in added and added[after[0]].special else None


def render_chat(tokenizer: Any, messages: Any, source: str, values: Mapping[str, Any]) -> str:
    """A chat as text, up to where the model begins to write.

    Raises LayerpickError, naming `source`, when the template refuses the messages.
    """
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, **values
        )
    except _REFUSALS as error:
        raise LayerpickError(
            f"The model's chat template refuses {source} with the roles "
            f"{', '.join(message['role'] for message in messages)}: {error}."
        ) from error


def in_words(settings: TaskSettings) -> str:
    """The form as a person would say it."""
    parts = []
    if settings.template is not None:
        parts.append(f"the template {_quoted(settings.template)}")
    elif settings.chat_template is None:
        parts.append("rows as they are")
    else:
        parts.append("a user's message in the model's chat template")
        if settings.system:
            parts.append(f"system's message {_quoted(settings.system)}")
        if settings.instruction:
            parts.append(f"ending {_quoted(settings.instruction)}")
    parts += [f"{name}={value}" for name, value in settings.chat_template_kwargs.items()]
    if settings.stop:
        parts.append(f"stopped by {' or '.join(map(_quoted, settings.stop))}")
    return ", ".join(parts)


def thinking_note(settings: TaskSettings) -> str | None:
    """How to turn thinking on again, where it has been turned off."""
    values = settings.chat_template_kwargs
    switch = next((name for name in THINKING_SWITCHES if values.get(name) is False), None)
    if switch is None:
        return None
    return f"Thinking is off; --chat-template-kwargs '{{\"{switch}\": true}}' turns it on."


def _quoted(text: str) -> str:
    """On one line, and in short where it is long."""
    shown = text if len(text) <= 120 else f"{text[:50]} … {text[-60:]}"
    return "'" + shown.replace("\n", "\\n") + "'"
