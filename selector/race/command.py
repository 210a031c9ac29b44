"""`layerpick race`."""

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
from layerpick.selector.training_run.settings import PaceChoice


@with_groups
def race(
    model: ModelChoice,
    settings: TaskSettings,
    rl: RlSettings,
    racing: RaceChoice,
    choice: PaceChoice,
    heldout: HeldOutChoice,
    sampling: SamplingChoice = TRAINING_SAMPLING,
    task: TaskName = "math",
    algorithm: AlgorithmName = None,
    suggestion: Annotated[
        Path | None,
        typer.Option(
            help="A suggestion.json to take the arms from; made first if left out.",
            dir_okay=False,
        ),
    ] = None,
    sweeps: Annotated[
        Path,
        typer.Option(help="Finalists are kept as runs of a sweep here.", file_okay=False),
    ] = Path("sweeps"),
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for everything; runs/MODEL/TASK-ALGORITHM/race-… if left out. The same "
            "command goes on where it was killed.",
            file_okay=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the layers that may be best side by side; keep the one that wins, trained.

    All share their prompts. After 10, 20, 40 and 70 % of the steps the prediction and the curves \
foretell every final score, and layers that cannot win leave.

    Examples:

      layerpick race

      layerpick race Qwen/Qwen3-4B --task math --race-budget 4

      layerpick race Qwen/Qwen3-4B --task math --race-rates 1e-5,3e-5

      layerpick apply runs/…/race-seed0/winner --out trained
    """
    from rich.console import Console

    from layerpick.selector.progress import reporting
    from layerpick.selector.race.report import print_race
    from layerpick.selector.race.run import race as run_it
    from layerpick.selector.race.write import write_race

    with reporting() as reporter:
        outcome = run_it(
            model,
            task,
            suggestion=suggestion,
            settings=settings,
            algorithm=algorithm,
            sampling=sampling,
            rl=rl,
            heldout=heldout,
            racing=racing,
            choice=choice,
            seed=seed,
            sweeps=sweeps,
            out=out,
            reporter=reporter,
        )
    write_race(outcome)
    if as_json:
        answer = outcome.result.model_dump(mode="json")
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    print_race(outcome.result, Console())
    print(f"Written: {outcome.place}; the winner: {outcome.winner.path}", file=sys.stderr)
