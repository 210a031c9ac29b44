"""A race: arms trained side by side on the same prompts; at rungs, those that cannot win leave.

Objective and numbers are those of the engine's ordinary runs: an arm that never leaves ends with
the weights of the same run alone. Everything a race has done lies in its folder, so a race that was
killed goes on from its last checkpoint.

race.json              what the race is; the same command goes on, another is refused
steps.jsonl            one line per step: rewards of the arms that took it
checkpoint-N/          the newest one, while the race goes on

Limits: which arms leave is the judge's affair; all arms have one number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from layerpick.training.engine.learner import Learner
from layerpick.training.engine.loop import take_step
from layerpick.training.engine.patience import Patience
from layerpick.training.engine.stacked import SingleLayerPolicies
from layerpick.training.errors import LayerpickError
from layerpick.training.files import as_json, write_text
from layerpick.training.reading import read_record
from layerpick.training.runs.checkpoint import (
    latest_checkpoint,
    load_optimizer,
    load_trained,
    save_checkpoint,
)
from layerpick.training.runs.folder import RunFolder
from layerpick.training.runs.lines import append_line, read_lines, write_lines
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.sweeps.records import RunSettings
from layerpick.training.values import Record

ENGINE = "multiplexed"
RACE_FILE, STEPS_FILE = "race.json", "steps.jsonl"

Judge = Callable[[int, Sequence[int], np.ndarray], Sequence[int]]
"""(rung, arms still in, their curves (arms, steps)) → those that go on; it must not depend on
anything else, because a race that was killed asks again."""


class Arm(Record):
    """One candidate."""

    layer: int
    learning_rate: float


class RaceDescription(Record):
    """What a race is: equal descriptions on the same device give equal races."""

    settings: RunSettings
    arms: tuple[Arm, ...]
    rungs: tuple[int, ...]
    """Steps after which the judge is asked."""
    judged_by: str
    """The judge's settings, in words."""
    seed: int

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates of the arms, ascending."""
        return tuple(sorted({arm.learning_rate for arm in self.arms}))


class RaceStep(Record):
    """One step of the arms that took it."""

    step: int
    rewards: dict[int, float]
    """By arm: mean training reward."""
    losses: dict[int, float]
    """Those that are finite."""
    tokens: dict[int, int]
    """Written."""
    read: dict[int, int]
    """Tokens of whole episodes, read and written."""
    failed: dict[int, str]
    """Arms that this step ended, and why."""
    sampling_seconds: float
    update_seconds: float


@dataclass(frozen=True, eq=False)
class Raced:
    """How a race ended: all arms, those that took the last step, and what they trained."""

    policies: SingleLayerPolicies
    finalists: tuple[int, ...]
    steps: tuple[RaceStep, ...]
    failures: Mapping[int, str]

    def curve(self, arm: int) -> np.ndarray:
        """(steps of the arm,), float64: its mean training rewards."""
        return np.array([s.rewards[arm] for s in self.steps if arm in s.rewards])

    @cached_property
    def lengths(self) -> Mapping[int, int]:
        """How many steps each arm took."""
        arms = range(len(self.policies))
        return {arm: sum(arm in step.rewards for step in self.steps) for arm in arms}

    def passed(self, arm: int, done: int) -> bool:
        """Whether an arm took that many steps and did not fail in them."""
        taken = self.lengths[arm]
        return taken > done or (taken == done and arm not in self.failures)

    def trained(self, arm: int) -> Mapping[str, nn.Parameter]:
        """What an arm has trained, by its names in the model."""
        policies = self.policies
        prefix = policies.model.layers.prefix(policies.layers[arm])
        return {prefix + name: value for name, value in policies.copies[arm].trained.items()}


def train_arms(
    bench: Bench,
    race: RaceDescription,
    folder: Path,
    judge: Judge,
    *,
    checkpoint_every: int = 10,
    on_step: Callable[[int], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Raced:
    """Train the arms, ordered by layer, until the bench's steps are done or one is left alone.

    The arm that is left alone goes on to the last step, too. Goes on from the folder's last
    checkpoint. Raises LayerpickError for a folder of another race, when every arm has failed, and
    when no rewards differ from the start on (NoSignalError).
    """
    with RunFolder(folder).held():
        open_race(folder, race)
        running = _Race(bench, race, folder, judge)
        done = running.resume()
        on_step(done)
        if 0 < done < bench.settings.steps:
            note(f"Going on from step {done} of {bench.settings.steps}.")
        for number in range(done, bench.settings.steps):
            for sentence in running.step(number):
                note(sentence)
            if (number + 1) % checkpoint_every == 0 or number + 1 == bench.settings.steps:
                running.keep(number + 1)
            on_step(1)
        return running.raced()


class _Race:
    def __init__(self, bench: Bench, race: RaceDescription, folder: Path, judge: Judge):
        self._bench, self._race, self._folder, self._judge = bench, race, folder, judge
        self._policies = SingleLayerPolicies(bench.model, [arm.layer for arm in race.arms])
        self._learner = Learner(
            self._policies,
            bench.settings,
            tuple(arm.learning_rate for arm in race.arms),
            bench.sampling.temperature,
            bench.model,
            bench.chunk_tokens,
        )
        self._patience: Patience | None = None
        self._alive = list(range(len(race.arms)))
        self._steps: list[RaceStep] = []
        self._failures: dict[int, str] = {}

    def resume(self) -> int:
        """Bring everything to the last checkpoint; returns the steps done."""
        checkpoint = latest_checkpoint(self._folder)
        done = checkpoint.step if checkpoint else 0
        if not done:  # patience is of the first steps
            bench = self._bench
            self._patience = Patience(bench.model, bench.task, bench.sampling, bench.settings.steps)
        self._steps = read_lines(self._folder / STEPS_FILE, RaceStep)[:done]
        write_lines(self._folder / STEPS_FILE, self._steps)
        if checkpoint:
            load_trained(checkpoint, self._by_name())
            load_optimizer(checkpoint, self._learner.optimizer)
            self._failures = {a: why for step in self._steps for a, why in step.failed.items()}
            self._alive = sorted(self._steps[-1].rewards.keys() - self._failures.keys())
            self._leave(done)
        return done

    def step(self, number: int) -> list[str]:
        """One step of the arms still in; returns what there is to say of it."""
        taken = take_step(
            self._policies,
            self._learner,
            self._bench.task,
            self._bench.algorithm,
            self._bench.sampling,
            self._bench.settings,
            alive=self._alive,
            seed=self._race.seed,
            number=number,
        )
        episodes = {arm: taken.episodes(arm) for arm in taken.groups}
        losses = {arm: float(taken.losses[arm]) for arm in episodes}
        finite = {arm: loss for arm, loss in losses.items() if np.isfinite(loss)}
        broken = dict.fromkeys(losses.keys() - finite.keys(), "loss")
        broken |= dict.fromkeys(taken.broken, "gradient")
        self._steps.append(
            RaceStep(
                step=number + 1,
                rewards={a: float(np.mean([e.reward for e in own])) for a, own in episodes.items()},
                losses=finite,
                tokens={arm: sum(e.generated for e in own) for arm, own in episodes.items()},
                read={arm: sum(len(e.tokens) for e in own) for arm, own in episodes.items()},
                failed={
                    a: f"the {what} of step {number} is not finite" for a, what in broken.items()
                },
                sampling_seconds=taken.sampling_seconds,
                update_seconds=taken.update_seconds,
            )
        )
        append_line(self._folder / STEPS_FILE, self._steps[-1])
        if self._patience:
            self._patience.look(taken)
        self._failures |= self._steps[-1].failed
        self._alive = [arm for arm in self._alive if arm not in self._failures]
        if not self._alive:
            raise LayerpickError(
                "Every arm's loss or gradient is no longer finite: race at a smaller "
                "--learning-rate."
            )
        failed = [f"{self._name(arm)} fails: {why}." for arm, why in self._steps[-1].failed.items()]
        return [*failed, *self._leave(number + 1)]

    def _leave(self, done: int) -> list[str]:
        """Ask the judge where a rung is reached; returns a sentence if arms leave."""
        if done not in self._race.rungs or len(self._alive) == 1:
            return []
        curves = np.array([[s.rewards[arm] for s in self._steps] for arm in self._alive])
        kept = sorted(self._judge(self._race.rungs.index(done), tuple(self._alive), curves))
        gone = [arm for arm in self._alive if arm not in kept]
        self._alive = kept
        names = ", ".join(map(self._name, gone))
        return [f"After {done} steps, {names} leave{'s' * (len(gone) == 1)}."] if gone else []

    def _name(self, arm: int) -> str:
        chosen = self._race.arms[arm]
        several = sum(other.layer == chosen.layer for other in self._race.arms) > 1
        return f"layer {chosen.layer}" + (f" at {chosen.learning_rate:g}" if several else "")

    def keep(self, done: int) -> None:
        """Write a checkpoint of the steps that are done."""
        save_checkpoint(self._folder, done, self._by_name(), self._learner.optimizer)

    def raced(self) -> Raced:
        """The race as it ended."""
        finalists = tuple(arm for arm in self._alive if self._policies.finite(arm))
        if not finalists:
            raise LayerpickError("No arm's weights are finite: race at a smaller --learning-rate.")
        return Raced(self._policies, finalists, tuple(self._steps), self._failures)

    def _by_name(self) -> dict[str, nn.Parameter]:
        return {
            f"{arm}.{name}": parameter
            for arm, copied in enumerate(self._policies.copies)
            for name, parameter in copied.trained.items()
        }


def open_race(folder: Path, race: RaceDescription) -> None:
    """Start the folder, or go on in it. Raises LayerpickError when it holds another race."""
    path = folder / RACE_FILE
    if not path.is_file():
        write_text(path, as_json(race) + "\n")
        return
    found = read_record(path, RaceDescription, "a race", "delete it, or use another --out")
    if found != race:
        raise LayerpickError(
            f"{folder} holds another race (other arms, settings or seed): use another --out, or "
            f"delete it."
        )
