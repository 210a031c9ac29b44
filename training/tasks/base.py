"""What a task is: prompts for a split, an episode per prompt, and a reward.

A task knows nothing of models or tokens. It hands out prompts, opens one episode for each, and
answers text with text. The sampler plays all episodes of a batch in lock-step, so everything
here works on batches: a single-turn task scores one batch of completions, a multi-turn task
steps one batch of environments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from layerpick.training.tasks.settings import TaskSettings

Split = Literal["train", "heldout"]
Messages = tuple[Mapping[str, str], ...]
"""Chat messages as in TRL: mappings with `role` and `content`."""


@dataclass(frozen=True)
class Prompt:
    """One row of a task's data."""

    content: str | Messages
    """Raw text, used as it is, or chat messages, rendered by the model's chat template."""
    columns: Mapping[str, Any]
    """All columns of the row, passed to reward functions by name."""
    source: str
    """Where the row came from, for error messages: `file:line` or `dataset[index]`."""
    state: str | None = None
    """Identity of the state that the episode starts in; None: the prompt's text."""
    question: str | None = None
    """What a chat model is asked in place of `content`, where that is text to be continued."""


@dataclass(frozen=True)
class StepResult:
    """What an episode answers to one turn of the model."""

    reward: float
    done: bool
    observation: str = ""
    """What the model reads next; empty when done."""
    state: str | None = None
    """Identity of the state reached (GiGPO's anchor); None: the observation's text."""
    failure: str | None = None
    """Set when the environment itself broke: the episode ends and says why."""


class Episodes(ABC):
    """A batch of running episodes, one for each prompt it was opened with."""

    @abstractmethod
    def step(self, actions: Mapping[int, str]) -> dict[int, StepResult]:
        """Answer the model's text for some episodes, by index into the batch."""

    def close(self) -> None:  # noqa: B027 - most episodes hold nothing
        """Release what the episodes hold; called once, whatever happened before."""


class Task(ABC):
    """Prompts, episodes and rewards of one kind of work."""

    name: ClassVar[str]
    default_algorithm: ClassVar[str] = "grpo"
    max_new_tokens: ClassVar[int] = 256
    """Default length of one turn, in tokens."""
    max_chat_tokens: ClassVar[int] = 256
    """The same for raw prompts that go through a chat template: answers are longer there."""
    conversational: ClassVar[bool] = False
    """Raw prompts become a user's message where the model has a chat template."""
    instruction: ClassVar[str | None] = None
    """What a model is told after each raw question; None: the task takes no instruction."""
    plain_form: ClassVar[str | None] = None
    """Template for models without a chat template: `{prompt}` and, on a line of its own,
    `{instruction}`; None: the prompt as it is, to be continued."""
    plain_stop: ClassVar[tuple[str, ...]] = ()
    """Stop strings of the plain form: where the next question would begin."""

    def __init__(self, settings: TaskSettings):
        self.settings = settings

    @property
    def max_turns(self) -> int:
        """The most turns that an episode can have."""
        return 1

    @abstractmethod
    def prompts(self, split: Split, count: int, seed: int) -> tuple[Prompt, ...]:
        """`count` prompts of a split, the same for the same seed; splits never overlap.

        Raises LayerpickError when the data is missing, broken or too small.
        """

    @abstractmethod
    def open(self, prompts: Sequence[Prompt]) -> Episodes:
        """Start one episode for each prompt; the same prompt given twice starts equal episodes."""

    @property
    @abstractmethod
    def source(self) -> str:
        """The data set, generator or world, as a person names it."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Identity of the data: a hash of its rows, or of the generator and its options."""

    def check(self) -> None:  # noqa: B027 - most tasks need nothing
        """Raise LayerpickError if something the task needs is not installed."""


class SingleTurnTask(Task):
    """A task whose episode is one completion, scored at once."""

    def open(self, prompts: Sequence[Prompt]) -> Episodes:
        """Episodes of one turn."""
        return _SingleTurnEpisodes(self, tuple(prompts))

    @abstractmethod
    def rewards(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """One finite reward for each completion."""

    def answer(self, prompt: Prompt, completion: str) -> str | None:  # noqa: ARG002
        """What of a completion is judged; None where it holds nothing that could be."""
        return completion.strip() or None

    def final_answer(self, completion: str) -> str:
        """What a completion comes to: completions with equal answers say the same."""
        return completion.strip()


@dataclass
class _SingleTurnEpisodes(Episodes):
    task: SingleTurnTask
    prompts: tuple[Prompt, ...]

    def step(self, actions: Mapping[int, str]) -> dict[int, StepResult]:
        rewards = self.task.rewards([self.prompts[i] for i in actions], list(actions.values()))
        return {
            i: StepResult(reward, done=True) for i, reward in zip(actions, rewards, strict=True)
        }


@dataclass(frozen=True)
class TaskInfo:
    """What `layerpick tasks` prints about a task."""

    name: str
    about: str
    sources: tuple[str, ...]
    default: str
    needs: str
