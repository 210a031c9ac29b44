"""Layers in training on fixed texts: their steps, and how they would do on others.

The first step of all layers comes from one backward pass. Then a few layers at a time read each
text together, from what the model made of it, so that memory is that of a few layers in training
and of one text, however large the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from layerpick.probes.trials.prefixes import Text
from layerpick.probes.trials.reader import Known, Reader
from layerpick.probes.trials.scores import PromptScore, score_prompt, summary

MAX_GRADIENT_NORM = 1.0
TRAINED_BYTES = 5e8
"""What layers that are trained side by side may hold: weights, gradients, AdamW's two moments."""
PER_PARAMETER = 16
"""Bytes of those for each parameter."""
Scores = list[list[PromptScore]]
"""By layer, one for each prompt; none of a layer that was not trained."""


class Trainee:
    """One layer's policy and its optimizer: AdamW, the gradient clipped to 1."""

    def __init__(self, reader: Reader, layer: int, rate: float):
        self.layer = layer
        self._reader = reader
        self._policy = reader.policy(layer)
        self._parameters = list(self._policy.trained.values())
        self._optimizer = torch.optim.AdamW(
            self._parameters, rate, weight_decay=0.0, fused=True, foreach=False
        )

    def log_probs(self, known: Known) -> Tensor:
        """(N,), float32: of the written tokens; in the graph where gradients are on."""
        return self._reader.log_probs(known, self.layer, self._policy)

    def first_step(self, gradient: Mapping[str, Tensor]) -> None:
        """A step along a gradient that is known; by parameter."""
        for name, parameter in self._policy.trained.items():
            if name in gradient:
                parameter.grad = gradient[name].float().clone()
        self.step()

    def learn(self, known: Known) -> None:
        """Add the gradient of a text's loss."""
        known.text.loss(self.log_probs(known), known.base).backward()

    def step(self) -> None:
        """Move along the gradient that has been added up."""
        torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()


@torch.no_grad()
def judge(reader: Reader, trainees: Sequence[Trainee], texts: Iterable[Text]) -> Scores:
    """By trainee, one score for each prompt of the texts; a prompt may be in several of them."""
    found: list[list[np.ndarray]] = [[] for _ in trainees]
    about = []
    for text in texts:
        known = reader.base(text, trainees[0].layer)
        about.append(np.array([(each.group, each.reward) for each in text.trajectories]))
        for trainee, own in zip(trainees, found, strict=True):
            difference = (trainee.log_probs(known) - known.base).double()
            divergence = difference.exp() - 1 - difference
            own.append(np.array([text.by_trajectory(each) for each in (difference, divergence)]))
    prompts, rewards = np.concatenate(about).T
    places = [np.flatnonzero(prompts == prompt) for prompt in dict.fromkeys(prompts.tolist())]
    moves = [np.concatenate(own, axis=1) for own in found]
    return [[score_prompt(rewards[own], *each[:, own]) for own in places] for each in moves]


def trials(
    reader: Reader,
    halves: Sequence[Sequence[Text]],
    rates: np.ndarray,
    times: Sequence[int],
    layers: Sequence[int],
    on_done: Callable[[int], None] = lambda _: None,
) -> dict[int, Scores]:
    """Train those layers, each on one half, and judge them on the other, both ways; by time.

    rates (all layers,): each layer's. Judged after so many steps as `times` names. `on_done` is
    told how many layers are done with a half.
    """
    scores: dict[int, Scores] = {time: [[] for _ in rates] for time in times}
    for train, test in (halves, halves[::-1]):
        lessons = [text for text in train if text.teaches]
        gradients = reader.gradients(lessons)
        for group in reader.groups(layers, TRAINED_BYTES / PER_PARAMETER):
            trainees = [Trainee(reader, layer, float(rates[layer])) for layer in group]
            for time in range(1, max(times) + 1):
                _step(reader, trainees, lessons, gradients if time == 1 else None)
                if time in times:
                    for layer, judged in zip(group, judge(reader, trainees, test), strict=True):
                        scores[time][layer] += judged
            on_done(len(group))
    return scores


def features_of(scores: Scores, prefix: str) -> dict[str, np.ndarray]:
    """What the layers' scores amount to, each (layers,), float64; see `summary`.

    Not a number for a layer that was not trained.
    """
    rows = [summary(found) if found else {} for found in scores]
    names = next(row for row in rows if row)
    return {f"{prefix}_{n}": np.array([row.get(n, np.nan) for row in rows]) for n in names}


def _step(
    reader: Reader,
    trainees: Sequence[Trainee],
    lessons: Sequence[Text],
    gradients: Sequence[Mapping[str, Tensor]] | None,
) -> None:
    """One step of each layer; `gradients` of all layers where they are known, as at first."""
    if gradients is not None:
        for trainee in trainees:
            trainee.first_step(gradients[trainee.layer])
        return
    for text in lessons:
        known = reader.base(text, trainees[0].layer)
        for trainee in trainees:
            trainee.learn(known)
    for trainee in trainees:
        trainee.step()
