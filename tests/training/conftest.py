"""What a training run needs, on tiny models."""

from __future__ import annotations

import numpy as np
import pytest

from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.episodes.play import SamplingSettings
from layerpick.training.episodes.scoring import held_out
from layerpick.training.settings import RlSettings
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.tasks.base import (
    Episodes,
    Prompt,
    SingleTurnTask,
    StepResult,
    Task,
    TaskSettings,
)


class Letters(SingleTurnTask):
    """Rewards the share of characters whose code is divisible by three."""

    name = "letters"
    source = "letters"

    def prompts(self, split, count, seed):
        lengths = np.random.default_rng([seed, split == "train"]).integers(3, 12, count)
        return tuple(Prompt("the quick fox"[:length], {}, f"row {length}") for length in lengths)

    def rewards(self, prompts, completions):
        return [sum(ord(c) % 3 == 0 for c in text) / (len(text) + 1) for text in completions]

    def fingerprint(self):
        return "letters"


class Scripted(Task):
    """Two turns; states and rewards do not depend on what is written.

    Both episodes of a group begin in state A; the first goes on to B and earns 1 there, the
    second goes on to C and earns nothing.
    """

    name = "scripted"
    source = "scripted"
    max_turns = 2
    prompts = Letters.prompts
    fingerprint = Letters.fingerprint

    def open(self, prompts):
        class Two(Episodes):
            turn = 0

            def step(self, actions):
                self.turn += 1
                last = self.turn == 2
                return {
                    i: StepResult(
                        reward=float(last and i % 2 == 0),
                        done=last,
                        observation="" if last else f"[{'CB'[i % 2 == 0]}]",
                        state=None if last else "CB"[i % 2 == 0],
                    )
                    for i in actions
                }

        return Two()


@pytest.fixture
def make_bench():
    """`make_bench(model)`: four prompts of four samples, a few steps."""

    def make(model, algorithm="grpo", *, task=None, turn=6, group_size=4, **settings) -> Bench:
        chosen = task or Letters(TaskSettings())
        return Bench(
            model=model,
            task=chosen,
            algorithm=make_algorithm(algorithm),
            sampling=SamplingSettings(turn, temperature=1.3, stop=("a", "e"), rows=1000),
            settings=RlSettings(**{"steps": 3, "prompts": 4, "group_size": group_size, **settings}),
            heldout=held_out(chosen, 4, 2),
            learning_rates=(1e-3,),
        )

    return make


@pytest.fixture
def letters() -> Task:
    """One turn, prompts and completions of several lengths."""
    return Letters(TaskSettings())


@pytest.fixture
def scripted() -> Task:
    """A task whose advantages can be worked out by hand."""
    return Scripted(TaskSettings())
