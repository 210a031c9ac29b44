"""A few rollouts as text."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from layerpick.selector.prepare import prepare
from layerpick.selector.progress import Reporter, Silent
from layerpick.selector.settings import ModelChoice, RolloutChoice, SamplingChoice
from layerpick.selector.suggestion import summaries
from layerpick.selector.suggestion.probing import get_rollouts, refuse_contradictions, transcripts
from layerpick.selector.suggestion.result import TaskSummary
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.episodes.transcripts import Transcript, share_readable
from layerpick.training.tasks.settings import TaskSettings
from layerpick.training.values import Record


class ShownRollout(Record):
    """One completion."""

    prompt: str = Field(description="as the model read it")
    completion: str
    answer: str | None = Field(description="what of it was judged")
    expected: str | None = Field(description="the right answer, where the row names one")
    reward: float
    cut: bool = Field(description="whether it was ended by the longest length")
    tokens: int


class ShownRollouts(Record):
    """What a model says."""

    model: str
    task: TaskSummary
    max_new_tokens: int
    temperature: float
    completions: int = Field(description="sampled, or in the file; the shares are of all")
    mean_reward: float
    cut: float = Field(description="share of completions cut off")
    readable: float = Field(description="share with an answer that could be read")
    rollouts: tuple[ShownRollout, ...] = Field(description="in order of prompt")


def rollouts(
    model: ModelChoice | str | None = None,
    task: str = "math",
    *,
    settings: TaskSettings | None = None,
    sampling: SamplingChoice | None = None,
    prompts: int = 4,
    samples: int = 2,
    saved: Path | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> ShownRollouts:
    """Sample `samples` completions of each of a few prompts, or take those of a saved file.

    Raises LayerpickError for whatever the user can mend.
    """
    model = model if isinstance(model, ModelChoice) else ModelChoice(model)
    sampling = sampling or SamplingChoice()
    prepared = prepare(model, task, settings or TaskSettings(), sampling)
    choice = RolloutChoice(prompts, samples) if saved is None else RolloutChoice(reuse=saved)
    found = get_rollouts(prepared, choice, seed, reporter or Silent())
    refuse_contradictions(found, choice, sampling)
    told = transcripts(prepared, found)
    algorithm = make_algorithm(prepared.task.default_algorithm)
    return ShownRollouts(
        model=prepared.model.identity.name,
        task=summaries.task(prepared.task, algorithm),
        max_new_tokens=found.origin.max_new_tokens,
        temperature=found.origin.temperature,
        completions=len(told),
        mean_reward=found.mean_reward,
        cut=found.cut,
        readable=share_readable(told),
        rollouts=tuple(
            _shown(each)
            for index, each in enumerate(told)
            if each.group < prompts and index % found.origin.group_size < samples
        ),
    )


def _shown(told: Transcript) -> ShownRollout:
    return ShownRollout(
        prompt=told.prompt,
        completion=told.completion,
        answer=told.answer,
        expected=told.expected,
        reward=told.reward,
        cut=told.cut,
        tokens=told.tokens,
    )
