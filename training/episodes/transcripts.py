"""Episodes as text, for people: what was asked, what was written, what it earned, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerpick.training.episodes.play import Stops
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.models.loading import LoadedModel
from layerpick.training.tasks.base import Prompt, SingleTurnTask, Task

FEW = 0.5
"""Below this share of readable answers, or above it of cut completions, that is the cause."""


@dataclass(frozen=True)
class Transcript:
    """One episode."""

    group: int
    """Index of the prompt."""
    prompt: str
    """As the model read it, special tokens included."""
    completion: str
    """What followed, without special tokens; the world's answers too where there are turns."""
    answer: str | None
    """What of it was judged; None where there was nothing that could be."""
    expected: str | None
    """The right answer, where the row names one."""
    reward: float
    cut: bool
    """Whether it was ended by the longest length."""
    tokens: int
    """Written by the model."""


def transcribe(
    model: LoadedModel, task: Task, prompts: Sequence[Prompt], episodes: Sequence[Trajectory]
) -> list[Transcript]:
    """Each episode as text; `prompts` are those of the groups, in order."""
    stops = Stops(model, task.settings.stop)
    return [_transcript(model, task, prompts[each.group], each, stops) for each in episodes]


def share_readable(told: Sequence[Transcript]) -> float:
    """Share of completions with something that could be judged."""
    return sum(each.answer is not None for each in told) / max(len(told), 1)


def why_no_signal(told: Sequence[Transcript], longest: int) -> str:
    """The likeliest cause that all rewards of each prompt are equal, and an example.

    `longest`: most tokens of a turn.
    """
    rewards = [each.reward for each in told]
    mean = sum(rewards) / len(rewards)
    cut, readable = sum(each.cut for each in told) / len(told), share_readable(told)
    example = next((each for each in told if each.cut), told[0]) if cut > FEW else told[0]
    if max(rewards) > min(rewards):
        cause = (
            "some prompts are always right and the others always wrong: give a larger "
            "--group-size, a higher --temperature, or prompts of medium difficulty"
        )
    elif mean > 0:
        cause = "every completion is right: give a harder data set"
    elif cut > FEW:
        cause = (
            f"{cut:.0%} of the completions were cut off at {longest:,} tokens, before their "
            f"answer: give a larger --max-new-tokens, or an --instruction to be brief"
        )
    elif readable < FEW:
        cause = (
            f"only {readable:.0%} of the completions hold an answer that can be read: ask for its "
            f"form with --instruction, or show it with --template"
        )
    else:
        cause = (
            f"{readable:.0%} of the completions hold an answer that can be read, and all are "
            f"wrong: give an easier data set, or a --template that shows how"
        )
    return (
        f"{cause}. For example, asked “{shortened(example.prompt, 160)}” it wrote "
        f"“{shortened(example.completion, 240)}”; `layerpick rollouts` shows more"
    )


def shortened(text: str, longest: int) -> str:
    """On one line, with the middle left out where it is longer."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    half = longest // 2
    return f"{line[:half].rstrip()} … {line[-half:].lstrip()}"


def _transcript(
    model: LoadedModel, task: Task, prompt: Prompt, episode: Trajectory, stops: Stops
) -> Transcript:
    decode = model.tokenizer.decode
    start = episode.prompt_length
    written = list(episode.tokens[start:])
    if isinstance(task, SingleTurnTask):
        completion = stops.text(written)
        answer = task.answer(prompt, completion)
    else:
        completion = decode(written, skip_special_tokens=True)
        answer = completion.strip() or None
    expected = prompt.columns.get("answer")
    return Transcript(
        group=episode.group,
        prompt=decode(list(episode.tokens[:start])),
        completion=completion,
        answer=answer,
        expected=None if expected is None else str(expected),
        reward=episode.reward,
        cut=episode.cut,
        tokens=episode.generated,
    )
