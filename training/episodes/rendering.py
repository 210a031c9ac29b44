"""From a task's prompts to tokens, and from later observations to tokens.

Raw text is used as it is, wrapped by a template, or becomes a user's message. Chat messages go
through the model's chat template; so do the observations of later turns, which then become the
user's messages. Which of these suits a model is settled by `tasks.forms`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.base import Messages, Prompt, Task
from layerpick.training.tasks.forms import MARK, render_chat

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Renderer:
    """Renders prompts and observations for one tokenizer.

    `template`: text with `{prompt}` or the name of any column, for raw prompts.
    `conversational`: raw prompts become a user's message where the model has a chat template and
    no template of the user's own is given; `system` then goes before it, `instruction` after the
    question. `chat_template_kwargs`: values that the chat template reads.
    """

    tokenizer: Any
    template: str | None = None
    conversational: bool = False
    system: str | None = None
    instruction: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: Any, task: Task) -> Renderer:
        """The renderer of a task's prompts."""
        chosen = task.settings
        return cls(
            tokenizer,
            chosen.template,
            task.conversational,
            chosen.system,
            chosen.instruction,
            chosen.chat_template_kwargs,
        )

    def tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt. Raises LayerpickError naming the row that cannot be rendered."""
        if self._is_chat(prompt):
            text = self._chat(self._messages(prompt), prompt.source)
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._encode(self._fill(prompt), prompt.source)

    def as_trl_reads(self, prompt: Prompt) -> str | list[dict[str, str]]:
        """The prompt as a row of a TRL data set: text, or chat messages that TRL renders."""
        if self._is_chat(prompt):
            return [dict(message) for message in self._messages(prompt)]
        return self._fill(prompt)

    def reply_tokens(self, prompt: Prompt, observation: str) -> tuple[int, ...]:
        """Token ids of what the model reads after its turn: the environment's observation.

        In a chat, that is whatever the template puts between the model's words and the next
        generation, e.g. the end of the assistant's message and the user's new one.
        """
        if not self._is_chat(prompt):
            return tuple(self.tokenizer(observation, add_special_tokens=False)["input_ids"])
        messages = (
            *self._messages(prompt),
            {"role": "assistant", "content": MARK},
            {"role": "user", "content": observation},
        )
        suffix = self._chat(messages, prompt.source).rpartition(MARK)[2]
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
        return render_chat(self.tokenizer, messages, source, self.chat_template_kwargs)

    def _messages(self, prompt: Prompt) -> Messages:
        """A chat as it is; raw text as the user's message."""
        if not isinstance(prompt.content, str):
            return prompt.content
        question = prompt.content if prompt.question is None else prompt.question
        words = f"{question}\n{self.instruction}" if self.instruction else question
        user = {"role": "user", "content": words}
        return ({"role": "system", "content": self.system}, user) if self.system else (user,)

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
