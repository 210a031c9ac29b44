"""When training ends because there is nothing to learn from, and with what reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from layerpick.training.engine.loop import Step
from layerpick.training.episodes.play import SamplingSettings
from layerpick.training.episodes.transcripts import Transcript, transcribe, why_no_signal
from layerpick.training.errors import NoSignalError
from layerpick.training.models.loading import LoadedModel
from layerpick.training.tasks.base import Task

PATIENCE = 10
"""Steps from the start after which a reward that never differs ends the run."""


class Earned(NamedTuple):
    """What one step earned."""

    reward: float
    """Mean over its episodes."""
    signal: bool
    """Whether the rewards of any group differed."""


def due(done: int, last: int) -> bool:
    """Whether it is now, after `done` of `last` steps, that a reward must have differed."""
    return done == min(PATIENCE, last)


def require_signal(
    steps: Sequence[Earned], told: Callable[[], Sequence[Transcript]], longest: int
) -> None:
    """Raise NoSignalError when no reward has differed in any of these steps.

    `told` gives the last step's episodes as text, none where they are not at hand; `longest` is the
    most tokens of a turn.
    """
    if any(step.signal for step in steps):
        return
    reward = sum(step.reward for step in steps) / len(steps)
    episodes = told()
    cause = (
        why_no_signal(episodes, longest)
        if episodes
        else "give an easier or a harder data set, a higher --temperature, or a larger --group-size"
    )
    raise NoSignalError(
        f"In {len(steps)} steps no group's rewards differed (mean reward {reward:.2f}), so "
        f"nothing was learned: {cause}."
    )


class Patience:
    """Looks at every step of policies that are trained side by side."""

    def __init__(self, model: LoadedModel, task: Task, sampling: SamplingSettings, last: int):
        """`last`: steps in all."""
        self._model, self._task, self._last = model, task, last
        self._longest = sampling.max_new_tokens
        self._steps: list[Earned] = []

    def look(self, step: Step) -> None:
        """Raise NoSignalError when it is over and no policy's rewards have ever differed."""
        episodes = [episode for policy in step.groups for episode in step.episodes(policy)]
        reward = float(np.mean([episode.reward for episode in episodes]))
        self._steps.append(Earned(reward, step.signal))
        if due(len(self._steps), self._last):
            require_signal(
                self._steps,
                lambda: transcribe(self._model, self._task, step.prompts, episodes),
                self._longest,
            )
