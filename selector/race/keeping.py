"""What a race leaves behind: the winner as a run, finalists as runs of a sweep, the result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from layerpick.calibration.sweeps.store import FolderStore, sweep_folder
from layerpick.selector.race.result import RESULT_FILE, RaceResult
from layerpick.selector.suggestion import summaries
from layerpick.training.engine.loop import PolicyRun
from layerpick.training.engine.race import ENGINE, STEPS_FILE, Raced, RaceDescription
from layerpick.training.engine.run import OwnSettings
from layerpick.training.episodes.scoring import HeldOutScore
from layerpick.training.errors import LayerpickError
from layerpick.training.reading import read_record
from layerpick.training.runs.delta import whole_checksum
from layerpick.training.runs.folder import PolicyScore, RunFolder, RunResult, StepMetrics
from layerpick.training.runs.rules import save_trained
from layerpick.training.sweeps.multiplexed import Bench, device_name, model_label, record
from layerpick.training.sweeps.records import RunKey

WINNER = "winner"
_REMEDY = "delete it, or use another --out"


def kept_result(place: Path) -> tuple[RaceResult, RunFolder] | None:
    """The result of a finished race and its winner; None while there is none.

    A race whose winner was lost or damaged is forgotten, so that it is run anew.
    """
    file, winner = place / RESULT_FILE, RunFolder(place / WINNER)
    if not file.is_file():
        return None
    result = read_record(file, RaceResult, "the result of a race", _REMEDY)
    trained = winner.result() if winner.path.is_dir() else None
    if trained is not None and whole_checksum(winner.path) == trained.delta:
        return result, winner
    file.unlink()
    (place / STEPS_FILE).unlink(missing_ok=True)
    if winner.path.is_dir():
        winner.forget()
    return None


def forget(place: Path) -> None:
    """Remove the checkpoint of a race that is over."""
    for checkpoint in place.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def keep_winner(
    bench: Bench,
    place: Path,
    raced: Raced,
    winner: int,
    race: RaceDescription,
    base: HeldOutScore,
    scores: Mapping[int, HeldOutScore],
) -> RunFolder:
    """The winner as a run folder of its own, as `layerpick train --engine own` would leave it."""
    folder = RunFolder(place / WINNER)
    arm = race.arms[winner]
    description = OwnSettings((arm.layer,), arm.learning_rate, race.seed).describe(bench)
    folder.open(description)
    if folder.result() is not None:
        return folder
    folder.begin(0)
    for step in _metrics(raced, winner, arm.learning_rate):
        folder.append(step)
    save_trained(
        folder,
        bench,
        (arm.layer,),
        raced.trained(winner),
        steps=len(raced.steps),
        learning_rate=arm.learning_rate,
        seed=race.seed,
    )
    folder.finish(
        RunResult(
            cost=folder.cost(),
            base=PolicyScore.of(base),
            trained=PolicyScore.of(scores[winner]),
            full_parameters=sum(p.numel() for p in bench.model.model.parameters()),
            device=device_name(bench.model.device),
            versions=summaries.versions(),
            chosen=f"the winner of a race of {arms_in_words(race, ' at ')}",
            reward=bench.task.settings.reward,
            run=description.identity,
            delta=whole_checksum(folder.path),
        )
    )
    return folder


def arms_in_words(race: RaceDescription, at: str) -> str:
    """The layers, and `at` which rates where these are several."""
    layers = ", ".join(map(str, dict.fromkeys(arm.layer for arm in race.arms)))
    rates = " and ".join(f"{rate:g}" for rate in race.rates)
    return f"layers {layers}" + (f"{at}{rates}" if len(race.rates) > 1 else "")


def _metrics(raced: Raced, winner: int, rate: float) -> list[StepMetrics]:
    """The winner's share of every step, under TRL's names."""
    parameters = sum(p.numel() for p in raced.trained(winner).values())
    tokens, found = 0, []
    for step in raced.steps:
        share = 1 / len(step.rewards)
        tokens += step.read[winner]
        found.append(
            StepMetrics(
                step=step.step,
                sampling_seconds=step.sampling_seconds * share,
                update_seconds=step.update_seconds * share,
                trainable_parameters=parameters,
                optimizer_bytes=8 * parameters,
                values={
                    "loss": step.losses[winner],
                    "reward": step.rewards[winner],
                    "learning_rate": rate,
                    "num_tokens": float(tokens),
                },
            )
        )
    return found


def keep_records(
    bench: Bench,
    raced: Raced,
    race: RaceDescription,
    base: HeldOutScore,
    scores: Mapping[int, HeldOutScore],
    sweeps: Path,
    note: Callable[[str], None],
) -> None:
    """What took all steps is a run of a sweep: later sweeps need not measure it again.

    Arms that left have no final score, so they are none. Rates are each policy's own, as
    `layerpick sweep` has them unless told otherwise.
    """
    # A sweep's settings say by which grid its rates are chosen, a race's do not.
    bench = replace(bench, rates="own", learning_rates=race.rates)
    name = model_label(bench.model.identity)
    place = sweep_folder(sweeps, name, bench.task.name, bench.algorithm.name)
    runs = [(RunKey(kind="base", seed=race.seed), PolicyRun(), base)]
    for number, score in scores.items():
        arm = race.arms[number]
        key = RunKey(kind="layer", seed=race.seed, layer=arm.layer, learning_rate=arm.learning_rate)
        tokens = sum(step.tokens[number] for step in raced.steps)
        runs.append((key, PolicyRun(raced.curve(number).tolist(), tokens=tokens), score))
    spent = sum(s.sampling_seconds + s.update_seconds for s in raced.steps)
    arms, seconds = len(race.arms), spent / len(runs)
    try:
        store = FolderStore(place)
        missing = [each for each in runs if store.read(each[0], bench.run_settings(ENGINE)) is None]
        if missing:
            store.write([record(bench, ENGINE, *each, seconds, arms) for each in missing])
    except LayerpickError as error:
        note(f"The finalists are not kept as runs of a sweep: {error}")
