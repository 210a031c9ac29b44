"""From a task's prompts to tokens, and from later observations to tokens.

Raw text is used as it is, or wrapped by a template. Chat messages go through the model's chat
template; so do the observations of later turns, which then become the user's messages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.base import Messages, Prompt

_FIELD = re.compile(r"\{(\w+)\}")
_MARK = "\u2063reply\u2063"
"""Stands for the model's own words while a chat template is rendered; no real text holds it."""


@dataclass(frozen=True)
class Renderer:
    """Renders prompts and observations for one tokenizer.

    `template`: text with `{prompt}` or the name of any column, for raw prompts.
    `conversational`: raw prompts become a user's message where the model has a chat template and
    no template of the user's own is given.
    """

    tokenizer: Any
    template: str | None = None
    conversational: bool = False

    def tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt. Raises LayerpickError naming the row that cannot be rendered."""
        if self._is_chat(prompt):
            messages = _as_messages(prompt.content)
            text = self._chat(messages, prompt.source)
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._encode(self._fill(prompt), prompt.source)

    def as_trl_reads(self, prompt: Prompt) -> str | list[dict[str, str]]:
        """The prompt as a row of a TRL data set: text, or chat messages that TRL renders."""
        if self._is_chat(prompt):
            return [dict(message) for message in _as_messages(prompt.content)]
        return self._fill(prompt)

    def reply_tokens(self, prompt: Prompt, observation: str) -> tuple[int, ...]:
        """Token ids of what the model reads after its turn: the environment's observation.

        In a chat, that is whatever the template puts between the model's words and the next
        generation, e.g. the end of the assistant's message and the user's new one.
        """
        if not self._is_chat(prompt):
            return tuple(self.tokenizer(observation, add_special_tokens=False)["input_ids"])
        messages = (
            *_as_messages(prompt.content),
            {"role": "assistant", "content": _MARK},
            {"role": "user", "content": observation},
        )
        suffix = self._chat(messages, prompt.source).rpartition(_MARK)[2]
        return tuple(self.tokenizer(suffix, add_special_tokens=False)["input_ids"])

    def _is_chat(self, prompt: Prompt) -> bool:
        if isinstance(prompt.content, str):
            return (
                self.conversational
                and self.template is None
                and bool(getattr(self.tokenizer, "chat_template", None))
            )
        return True

    def _chat(self, messages: Messages, source: str) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise LayerpickError(
                f"{source} is a chat, and the model has no chat template: give raw text prompts, "
                f"or an instruction-tuned model."
            )
        return self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )

    def _fill(self, prompt: Prompt) -> str:
        assert isinstance(prompt.content, str)
        if self.template is None:
            return prompt.content
        columns = {**prompt.columns, "prompt": prompt.content}
        used = [name for name in _FIELD.findall(self.template) if name in columns]
        if not used:
            raise LayerpickError(
                f"The template has no {{prompt}} (nor any other column of {prompt.source}: "
                f"{', '.join(sorted(columns))})."
            )
        return _FIELD.sub(
            lambda match: str(columns.get(match.group(1), match.group(0))), self.template
        )

    def _encode(self, text: str, source: str) -> tuple[int, ...]:
        if not text.strip():
            raise LayerpickError(f"{source} has an empty prompt.")
        tokens = tuple(self.tokenizer(text)["input_ids"])
        eos = self.tokenizer.eos_token_id
        # Some tokenizers close every text with the end token, which would end the episode.
        return tokens[:-1] if len(tokens) > 1 and tokens[-1] == eos else tokens


def _as_messages(content: str | Messages) -> Messages:
    return ({"role": "user", "content": content},) if isinstance(content, str) else content
