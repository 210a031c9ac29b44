"""Race layers of a loaded model: what `layerpick race`, `train` and `auto` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.races.curves import headroom_above
from layerpick.calibration.races.rule import RUNGS, RaceRule
from layerpick.calibration.races.store import find_rule
from layerpick.selector.progress import Reporter
from layerpick.selector.race.keeping import (
    arms_in_words,
    forget,
    keep_records,
    keep_winner,
    kept_result,
)
from layerpick.selector.race.result import ArmResult, RaceResult
from layerpick.selector.race.settings import RaceChoice
from layerpick.selector.suggestion import summaries
from layerpick.selector.suggestion.result import Suggestion
from layerpick.selector.training_run.advice import at_advised_rate
from layerpick.selector.training_run.settings import PaceChoice
from layerpick.training.engine.loop import step_seed
from layerpick.training.engine.race import (
    ENGINE,
    Arm,
    Raced,
    RaceDescription,
    open_race,
    train_arms,
)
from layerpick.training.episodes.scoring import HeldOutScore, score_model, score_policies
from layerpick.training.errors import LayerpickError
from layerpick.training.processes import processes
from layerpick.training.runs.folder import PolicyScore, RunFolder
from layerpick.training.runs.rules import refuse_float16
from layerpick.training.sweeps.multiplexed import SCORING_STEP, Bench, model_label


@dataclass(frozen=True)
class RaceOutcome:
    """A finished race and where it lies."""

    place: Path
    suggestion: Suggestion
    result: RaceResult
    winner: RunFolder
    """An ordinary run folder, for `layerpick apply` and `verify`."""


def check_race(choice: RaceChoice, learning_rate: float | None, steps: int) -> None:
    """Raise LayerpickError for options that contradict each other, and a race that cannot be."""
    rungs_of(steps)
    find_rule(next(iter(LEVELS)), choice.race_budget)
    if choice.race_rates and learning_rate is not None:
        raise LayerpickError("--race-rates names the rates: leave --learning-rate out.")
    if processes().count > 1:
        raise LayerpickError("A race trains in one process: start it without `accelerate launch`.")


def rungs_of(steps: int) -> tuple[int, ...]:
    """The steps after which arms are judged. Raises LayerpickError for a race that is too short."""
    rungs = sorted({round(share * steps) for share in RUNGS} - {0, steps})
    if len(rungs) < len(RUNGS):
        raise LayerpickError(f"A race of {steps} steps is too short to judge: use --steps 10.")
    return tuple(rungs)


def race_layers(
    bench: Bench,
    suggestion: Suggestion,
    choice: RaceChoice,
    pace: PaceChoice,
    seed: int,
    place: Path,
    sweeps: Path,
    reporter: Reporter,
) -> RaceOutcome:
    """Race the layers that may be best until one of them is trained, in the folder `place`.

    Goes on where an earlier start was killed. What took all steps is recorded as runs of a sweep
    below `sweeps`. Raises LayerpickError for whatever the user can mend.
    """
    refuse_float16(bench)
    bench = at_advised_rate(bench, suggestion, pace.learning_rate)
    rates = choice.race_rates or bench.learning_rates[:1]
    judge = _Judge.of(suggestion, choice, rates, bench.settings.steps)
    race = RaceDescription(
        settings=bench.run_settings(ENGINE),
        arms=judge.arms,
        rungs=judge.rungs,
        judged_by=repr(judge.rule),
        seed=seed,
    )
    open_race(place, race)
    done = kept_result(place)
    if done is not None:
        reporter.note(f"{place} is finished; nothing is trained again.")
        return RaceOutcome(place, suggestion, *done)
    noise = step_seed(seed, SCORING_STEP)
    scored = (bench.task, bench.sampling, bench.heldout, noise)
    base = score_model(bench.model, *scored, reporter=reporter)
    headroom = headroom_above(base.mean)
    reporter.note(f"Racing {arms_in_words(race, ', each at ')}.")
    raced = train_arms(
        bench,
        race,
        place,
        lambda rung, alive, curves: judge.stay(rung, alive, curves, headroom),
        checkpoint_every=pace.checkpoint_every,
        on_step=reporter.stage("racing", bench.settings.steps),
        note=reporter.note,
    )
    verdict = judge.verdict(raced, headroom)
    shown = sorted({*raced.finalists, *verdict.order[:2]})
    found = score_policies(raced.policies, *scored, shown, reporter)
    scores = dict(zip(shown, found, strict=True))
    result = _result(bench, suggestion, raced, race, verdict, scores, base)
    folder = keep_winner(bench, place, raced, verdict.order[0], race, base, scores)
    finalists = {arm: scores[arm] for arm in raced.finalists}
    keep_records(bench, raced, race, base, finalists, sweeps, reporter.note)
    result.save(place)
    forget(place)
    return RaceOutcome(place, suggestion, result, folder)


@dataclass(frozen=True)
class _Verdict:
    """What is thought of the arms when the race is over."""

    order: tuple[int, ...]
    """Arms that did not fail: the winner, then those nearest to it."""
    chances: dict[int, float]
    """Of being best among those still in, when last judged."""
    kept: float
    """Chance that the best arm never left, and won."""


@dataclass(frozen=True)
class _Judge:
    """The rule of a race beside the predictions for its arms."""

    rule: RaceRule
    arms: tuple[Arm, ...]
    """By layer, then by rate."""
    predicted: np.ndarray
    """(arms,), float64."""
    rungs: tuple[int, ...]

    @classmethod
    def of(
        cls, suggestion: Suggestion, choice: RaceChoice, rates: Sequence[float], steps: int
    ) -> _Judge:
        """Which arms set out, and when they are judged. Raises LayerpickError for a short race."""
        rungs = rungs_of(steps)
        level = next((n for n, e in LEVELS.items() if e.about in suggestion.basis), "backward")
        rule: RaceRule = find_rule(level, choice.race_budget)
        if choice.arms is not None:
            rule = rule.model_copy(update={"arms": choice.arms})
        policies = [(each.layer, rate) for each in suggestion.layers for rate in sorted(rates)]
        predicted = np.array([suggestion.layers[layer].predicted for layer, _ in policies])
        chosen = np.sort(rule.start(predicted))
        arms = tuple(Arm(layer=policies[i][0], learning_rate=policies[i][1]) for i in chosen)
        return cls(rule, arms, predicted[chosen], rungs)

    def stay(
        self, rung: int, alive: Sequence[int], curves: np.ndarray, headroom: float
    ) -> list[int]:
        """Those of the arms that go on, given their curves (arms, steps so far)."""
        mean, found = self.rule.chances(rung, self.predicted[list(alive)], curves, headroom)
        return [arm for arm, stays in zip(alive, self.rule.keep(mean, found), strict=True) if stays]

    def verdict(self, raced: Raced, headroom: float) -> _Verdict:
        """Foretell the end by prediction and curves, as at every rung before.

        Held-out scores decide nothing, so that the winner's is not flattered.
        """
        chances: dict[int, float] = {}
        foretold: dict[int, float] = {}
        kept = 1.0
        for rung, done in enumerate((*self.rungs, len(raced.steps))):
            alive = [arm for arm in raced.lengths if raced.passed(arm, done)]
            if done == len(raced.steps):
                alive = [arm for arm in alive if arm in raced.finalists]
            if len(alive) == 1:
                chances.setdefault(alive[0], 1.0)
                continue
            curves = np.array([raced.curve(arm)[:done] for arm in alive])
            mean, found = self.rule.chances(rung, self.predicted[alive], curves, headroom)
            chances |= dict(zip(alive, found.tolist(), strict=True))
            foretold |= dict(zip(alive, mean.tolist(), strict=True))
            last = done == len(raced.steps)
            stay = np.arange(len(mean)) == mean.argmax() if last else self.rule.keep(mean, found)
            kept *= float(found[stay].sum())
        whole = [
            arm for arm in raced.lengths if arm not in raced.failures and raced.policies.finite(arm)
        ]
        order = sorted(
            whole, key=lambda arm: (-raced.lengths[arm], -foretold.get(arm, 0.0), -chances[arm])
        )
        return _Verdict(tuple(order), chances, kept)


def _result(
    bench: Bench,
    suggestion: Suggestion,
    raced: Raced,
    race: RaceDescription,
    verdict: _Verdict,
    scores: dict[int, HeldOutScore],
    base: HeldOutScore,
) -> RaceResult:
    arms = tuple(
        ArmResult(
            layer=arm.layer,
            learning_rate=arm.learning_rate,
            predicted=suggestion.layers[arm.layer].predicted,
            chance_best=verdict.chances.get(number, 0.0),
            steps=raced.lengths[number],
            curve=tuple(raced.curve(number).tolist()),
            score=PolicyScore.of(scores[number]) if number in scores else None,
            failure=raced.failures.get(number),
        )
        for number, arm in enumerate(race.arms)
    )
    winner = arms[verdict.order[0]]
    covered = sum(suggestion.layers[layer].chance_best for layer in {arm.layer for arm in arms})
    return RaceResult(
        model=model_label(bench.model.identity),
        layers=len(bench.model.layers),
        task=bench.task.name,
        algorithm=bench.algorithm.name,
        seed=race.seed,
        steps=bench.settings.steps,
        winner=winner.layer,
        learning_rate=winner.learning_rate,
        chance_missed=1 - covered * verdict.kept,
        cost=sum(arm.steps for arm in arms) / bench.settings.steps,
        rungs=race.rungs,
        base=PolicyScore.of(base),
        arms=arms,
        basis=suggestion.basis,
        seconds=sum(s.sampling_seconds + s.update_seconds for s in raced.steps),
        versions=summaries.versions(),
    )
