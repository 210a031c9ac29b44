"""From a model and a task to the best of several layers, trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.races.curves import headroom_above
from layerpick.calibration.races.rule import RUNGS, RaceRule
from layerpick.calibration.races.store import find_rule
from layerpick.calibration.sweeps.store import FolderStore, sweep_folder
from layerpick.selector.prepare import prepare
from layerpick.selector.progress import Reporter, Silent
from layerpick.selector.race.result import ArmResult, RaceResult
from layerpick.selector.race.settings import RaceChoice
from layerpick.selector.settings import (
    TRAINING_SAMPLING,
    HeldOutChoice,
    ModelChoice,
    RlSettings,
    SamplingChoice,
)
from layerpick.selector.suggestion import summaries
from layerpick.selector.suggestion.result import Suggestion
from layerpick.selector.training_run.advice import check_suggestion, find_suggestion
from layerpick.selector.training_run.run import default_out, make_bench
from layerpick.training.engine.loop import PolicyRun, step_seed
from layerpick.training.engine.race import (
    ENGINE,
    Arm,
    Raced,
    RaceDescription,
    open_race,
    train_arms,
)
from layerpick.training.engine.run import OwnSettings
from layerpick.training.episodes.scoring import HeldOutScore, score_model, score_policies
from layerpick.training.errors import LayerpickError
from layerpick.training.reading import read_record
from layerpick.training.runs.folder import PolicyScore, RunFolder, RunResult, StepMetrics
from layerpick.training.runs.rules import save_trained
from layerpick.training.sweeps.multiplexed import (
    SCORING_STEP,
    Bench,
    device_name,
    model_label,
    record,
)
from layerpick.training.sweeps.records import RunKey
from layerpick.training.tasks.settings import TaskSettings

RESULT_FILE, WINNER = "result.json", "winner"
OTHER_FOLDER = "delete it, or use another --out"


@dataclass(frozen=True)
class RaceOutcome:
    """A finished race and where it lies."""

    place: Path
    suggestion: Suggestion
    result: RaceResult
    winner: RunFolder
    """An ordinary run folder, for `layerpick apply` and `verify`."""


def race(
    model: ModelChoice | str | None = None,
    task: str = "math",
    *,
    settings: TaskSettings | None = None,
    algorithm: str | None = None,
    sampling: SamplingChoice = TRAINING_SAMPLING,
    rl: RlSettings | None = None,
    heldout: HeldOutChoice | None = None,
    choice: RaceChoice | None = None,
    seed: int = 0,
    sweeps: Path = Path("sweeps"),
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> RaceOutcome:
    """Suggest, race the layers that may be best, keep the winner's weights.

    Goes on where an earlier start was killed. Finalists are recorded as runs of a sweep below
    `sweeps`. Raises LayerpickError for whatever the user can mend.
    """
    model = model if isinstance(model, ModelChoice) else ModelChoice(model)
    settings, rl, choice = settings or TaskSettings(), rl or RlSettings(), choice or RaceChoice()
    reporter = reporter or Silent()
    prepared = prepare(model, task, settings, sampling)
    bench = make_bench(prepared, algorithm, rl, heldout or HeldOutChoice(), choice.learning_rate)
    place = out or default_out(bench, "race", seed)
    suggestion = find_suggestion(
        None,
        place,
        model,
        task,
        settings=settings,
        algorithm=algorithm,
        sampling=sampling,
        rl=rl,
        seed=seed,
        reporter=reporter,
    )
    check_suggestion(suggestion, bench)
    rule = _rule(suggestion, choice)
    predicted = np.array([layer.predicted for layer in suggestion.layers])
    layers = sorted(int(layer) for layer in rule.start(predicted))
    arms = predicted[layers]
    description = _describe(bench, layers, rule, seed)
    open_race(place, description)
    if (place / RESULT_FILE).is_file():
        reporter.note(f"{place} is finished; nothing is trained again.")
        done = read_record(place / RESULT_FILE, RaceResult, "the result of a race", OTHER_FOLDER)
        return RaceOutcome(place, suggestion, done, RunFolder(place / WINNER))
    noise = step_seed(seed, SCORING_STEP)
    base = score_model(bench.model, bench.task, bench.sampling, bench.heldout, noise)
    reporter.note(f"Racing layers {', '.join(map(str, layers))}.")
    headroom = headroom_above(base.mean)

    def judge(rung: int, alive: Sequence[int], curves: np.ndarray) -> list[int]:
        mean, found = rule.chances(rung, arms[list(alive)], curves, headroom)
        return [arm for arm, stays in zip(alive, rule.keep(mean, found), strict=True) if stays]

    raced = train_arms(
        bench,
        description,
        place,
        judge,
        checkpoint_every=choice.checkpoint_every,
        on_step=reporter.stage("racing", bench.settings.steps),
        note=reporter.note,
    )
    scored = score_policies(
        raced.policies, bench.task, bench.sampling, bench.heldout, noise, raced.finalists
    )
    scores = dict(zip(raced.finalists, scored, strict=True))
    winner, last = _winner(raced, rule, arms, headroom)
    chances, kept = _judged(raced, rule, arms, headroom, description.rungs)
    covered = sum(suggestion.layers[layer].chance_best for layer in layers)
    missed = 1 - covered * kept * last[winner]
    result = _result(
        bench, suggestion, raced, layers, scores, chances | last, base, layers[winner], missed
    )
    folder = _keep(bench, place / WINNER, raced, winner, description, base, scores[winner])
    _record(bench, raced, layers, base, scores, seed, sweeps, reporter)
    result.save(place / RESULT_FILE)
    return RaceOutcome(place, suggestion, result, folder)


def _rule(suggestion: Suggestion, race: RaceChoice) -> RaceRule:
    level = next((n for n, e in LEVELS.items() if e.about in suggestion.basis), "backward")
    rule = find_rule(level, race.race_budget)
    return rule if race.arms is None else rule.model_copy(update={"arms": race.arms})


def _describe(bench: Bench, layers: Sequence[int], rule: RaceRule, seed: int) -> RaceDescription:
    steps = bench.settings.steps
    rungs = sorted({round(share * steps) for share in RUNGS} - {0, steps})
    if len(rungs) < len(RUNGS):
        raise LayerpickError(f"A race of {steps} steps is too short to judge: use --steps 10.")
    rate = bench.learning_rates[0]
    return RaceDescription(
        settings=bench.run_settings(ENGINE),
        arms=tuple(Arm(layer=layer, learning_rate=rate) for layer in layers),
        rungs=tuple(rungs),
        judged_by=repr(rule),
        seed=seed,
    )


def _winner(
    raced: Raced, rule: RaceRule, predicted: np.ndarray, headroom: float
) -> tuple[int, dict[int, float]]:
    """The arm foretold best at the end, by prediction and curve, and all finalists' chances.

    Held-out scores decide nothing, so that the winner's is not flattered.
    """
    finalists = list(raced.finalists)
    if len(finalists) == 1:
        return finalists[0], {finalists[0]: 1.0}
    curves = np.array([raced.curve(arm) for arm in finalists])
    mean, found = rule.chances(len(RUNGS), predicted[finalists], curves, headroom)
    return finalists[int(mean.argmax())], dict(zip(finalists, found.tolist(), strict=True))


def _judged(
    raced: Raced,
    rule: RaceRule,
    predicted: np.ndarray,
    headroom: float,
    rungs: Sequence[int],
) -> tuple[dict[int, float], float]:
    """Each arm's chance of being best when last judged, and that the best never left."""
    chances: dict[int, float] = {}
    kept = 1.0
    for rung, done in enumerate(rungs):
        alive = sorted(raced.steps[done - 1].rewards)
        if len(alive) == 1:
            break
        curves = np.array([raced.curve(arm)[:done] for arm in alive])
        mean, found = rule.chances(rung, predicted[alive], curves, headroom)
        chances |= dict(zip(alive, found.tolist(), strict=True))
        kept *= float(found[rule.keep(mean, found)].sum())
    return chances, kept


def _result(
    bench: Bench,
    suggestion: Suggestion,
    raced: Raced,
    layers: Sequence[int],
    scores: dict[int, HeldOutScore],
    chances: dict[int, float],
    base: HeldOutScore,
    winner: int,
    missed: float,
) -> RaceResult:
    rate = bench.learning_rates[0]
    arms = [
        ArmResult(
            layer=layer,
            learning_rate=rate,
            predicted=suggestion.layers[layer].predicted,
            chance_best=chances.get(arm, 0.0),
            steps=len(raced.curve(arm)),
            curve=tuple(raced.curve(arm).tolist()),
            score=PolicyScore.of(scores[arm]) if arm in scores else None,
            failure=raced.failures.get(arm),
        )
        for arm, layer in enumerate(layers)
    ]
    steps = bench.settings.steps
    return RaceResult(
        model=model_label(bench.model.identity),
        layers=len(bench.model.layers),
        task=bench.task.name,
        algorithm=bench.algorithm.name,
        seed=suggestion.seed,
        winner=winner,
        chance_missed=missed,
        cost=sum(arm.steps for arm in arms) / steps,
        rungs=tuple(round(share * steps) for share in RUNGS),
        base=PolicyScore.of(base),
        arms=tuple(arms),
        basis=suggestion.basis,
        seconds=sum(s.sampling_seconds + s.update_seconds for s in raced.steps),
        versions=summaries.versions(),
    )


def _keep(
    bench: Bench,
    path: Path,
    raced: Raced,
    winner: int,
    race: RaceDescription,
    base: HeldOutScore,
    score: HeldOutScore,
) -> RunFolder:
    """The winner as a run folder of its own, as `layerpick train --engine own` would leave it."""
    folder = RunFolder(path)
    arm = race.arms[winner]
    settings = OwnSettings((arm.layer,), arm.learning_rate, race.seed)
    folder.open(settings.describe(bench))
    if folder.result() is not None:
        return folder
    trained = raced.trained(winner)
    folder.begin(0)
    arms = len(race.arms)
    for step in raced.steps:
        share = 1 / max(len(step.rewards), 1)
        folder.append(
            StepMetrics(
                step=step.step,
                sampling_seconds=step.sampling_seconds * share,
                update_seconds=step.update_seconds * share,
                trainable_parameters=sum(p.numel() for p in trained.values()),
                optimizer_bytes=8 * sum(p.numel() for p in trained.values()),
                values={
                    "loss": step.losses[winner],
                    "reward": step.rewards[winner],
                    "learning_rate": arm.learning_rate,
                    "num_tokens": float(step.tokens[winner]),
                },
            )
        )
    save_trained(
        folder,
        bench,
        (arm.layer,),
        trained,
        steps=len(raced.steps),
        learning_rate=arm.learning_rate,
        seed=race.seed,
    )
    folder.finish(
        RunResult(
            cost=folder.cost(),
            base=PolicyScore.of(base),
            trained=PolicyScore.of(score),
            full_parameters=sum(p.numel() for p in bench.model.model.parameters()),
            device=device_name(bench.model.device),
            versions=summaries.versions(),
            chosen=f"the winner of a race of {arms} layers",
        )
    )
    return folder


def _record(
    bench: Bench,
    raced: Raced,
    layers: Sequence[int],
    base: HeldOutScore,
    scores: dict[int, HeldOutScore],
    seed: int,
    sweeps: Path,
    reporter: Reporter,
) -> None:
    """What took all steps is a run of a sweep: later sweeps need not measure it again."""
    name = model_label(bench.model.identity)
    store = FolderStore(sweep_folder(sweeps, name, bench.task.name, bench.algorithm.name))
    settings = bench.run_settings(ENGINE)
    runs = [(RunKey(kind="base", seed=seed), PolicyRun(), base)]
    for arm, score in scores.items():
        key = RunKey(
            kind="layer", seed=seed, layer=layers[arm], learning_rate=bench.learning_rates[0]
        )
        tokens = sum(step.tokens.get(arm, 0) for step in raced.steps)
        runs.append((key, PolicyRun(rewards=raced.curve(arm).tolist(), tokens=tokens), score))
    seconds = sum(s.sampling_seconds + s.update_seconds for s in raced.steps) / max(len(runs), 1)
    try:
        missing = [each for each in runs if store.read(each[0], settings) is None]
    except LayerpickError as error:
        reporter.note(f"The finalists are not kept as runs of a sweep: {error}")
        return
    if missing:
        store.write([record(bench, ENGINE, *each, seconds, len(layers)) for each in missing])
