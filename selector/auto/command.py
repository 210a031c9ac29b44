"""`layerpick auto`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector.options import with_groups
from layerpick.selector.race.settings import RaceChoice
from layerpick.selector.settings import (
    TRAINING_SAMPLING,
    AlgorithmName,
    HeldOutChoice,
    Json,
    ModelChoice,
    RlSettings,
    SamplingChoice,
    Seed,
    TaskName,
    TaskSettings,
)
from layerpick.selector.training_run.settings import StrategyChoice, TrainingChoice
from layerpick.training.errors import LayerpickError


@with_groups
def auto(
    model: ModelChoice,
    settings: TaskSettings,
    rl: RlSettings,
    strategy: StrategyChoice,
    choice: TrainingChoice,
    racing: RaceChoice,
    heldout: HeldOutChoice,
    sampling: SamplingChoice = TRAINING_SAMPLING,
    task: TaskName = "math",
    algorithm: AlgorithmName = None,
    race: Annotated[
        bool,
        typer.Option(
            "--race",
            help="Train several layers side by side and keep the best: --layer race.",
        ),
    ] = False,
    with_full: Annotated[
        bool,
        typer.Option(
            "--with-full",
            help="Also train all parameters, to measure how much of that gain the layer recovers.",
        ),
    ] = False,
    sweeps: Annotated[
        Path,
        typer.Option(
            help="Folder of measured sweeps: one that fits is used in place of a full run. A "
            "race keeps its finalists here.",
            file_okay=False,
        ),
    ] = Path("sweeps"),
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for everything; runs/MODEL/TASK-ALGORITHM/… if left out. The same command "
            "goes on where it was killed.",
            file_okay=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Suggest a layer, train it, score it, and compare with what is measured.

    Measured is a stored sweep if one fits, or the full-parameter run with --with-full; without \
either, the score before and after.

    Examples:

      layerpick auto --with-full

      layerpick auto Qwen/Qwen3-4B --task math --steps 200

      layerpick auto Qwen/Qwen3-4B --task math --race

      layerpick auto --layer top:3 --with-full
    """
    from dataclasses import replace

    from rich.console import Console

    from layerpick.selector.auto.page import auto_page
    from layerpick.selector.auto.run import auto as go_all_the_way
    from layerpick.selector.pages.html import REPORT, write_page
    from layerpick.selector.progress import reporting
    from layerpick.selector.race.report import print_race
    from layerpick.selector.race.write import write_race
    from layerpick.selector.training_run.report import sentences
    from layerpick.selector.training_run.settings import RACE
    from layerpick.selector.verification.command import write
    from layerpick.selector.verification.report import print_verification

    if race and strategy.layer not in (StrategyChoice.layer, RACE):
        raise LayerpickError("--race chooses the layer: leave --layer out.")
    with reporting() as reporter:
        outcome = go_all_the_way(
            model,
            task,
            settings=settings,
            algorithm=algorithm,
            sampling=sampling,
            rl=rl,
            heldout=heldout,
            layer=replace(strategy, layer=RACE) if race else strategy,
            choice=choice,
            racing=racing,
            seed=seed,
            with_full=with_full,
            sweeps=sweeps,
            out=out,
            reporter=reporter,
        )
    raced = outcome.picked.race
    if raced:
        write_race(raced)
    write(outcome.verification, outcome.place)
    write_page(auto_page(outcome), outcome.place / REPORT)
    if as_json:
        answer = {
            "headline": outcome.headline,
            "verification": outcome.verification.model_dump(mode="json"),
            "run": outcome.picked.result.model_dump(mode="json"),
        }
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    console = Console()
    if raced:
        print_race(raced.result, console)
    for run in (outcome.picked, outcome.full):
        for line in sentences(run) if run else ():
            console.print(line, soft_wrap=True, highlight=False)
    print_verification(outcome.verification, console)
    print(f"Written: {outcome.place}", file=sys.stderr)
    console.print(f"[bold]{outcome.headline}[/bold]", soft_wrap=True, highlight=False)
