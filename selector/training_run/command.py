"""`layerpick train` and `layerpick apply`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
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
    LoadingChoice,
    ModelChoice,
    RlSettings,
    SamplingChoice,
    Seed,
    TaskName,
    TaskSettings,
)
from layerpick.selector.training_run.settings import StrategyChoice, TrainingChoice


@with_groups
def train(
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
    suggestion: Annotated[
        Path | None,
        typer.Option(
            help="A suggestion.json to take the layer from; made first if left out.",
            dir_okay=False,
        ),
    ] = None,
    sweeps: Annotated[
        Path,
        typer.Option(
            help="With --layer race: finalists are kept as runs of a sweep here.", file_okay=False
        ),
    ] = Path("sweeps"),
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; runs/MODEL/TASK-ALGORITHM/… if left out. The same command "
            "goes on with a run that was killed.",
            file_okay=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train exactly the named decoder layers with RL (TRL), everything else frozen.

    Scores the model on held-out prompts before and after, and writes the trained layer by itself \
as layer_delta.safetensors, which `layerpick apply` merges into the base model.

    Examples:

      layerpick train --layer 3

      layerpick train Qwen/Qwen3-4B --task math --steps 200 --report-to trackio

      accelerate launch --multi_gpu -m layerpick train Qwen/Qwen3-4B --layer 17

      layerpick train --layer top:3

      layerpick train Qwen/Qwen3-4B --layer race --race-budget 2

      layerpick train --boost top:3 --boost-factor 10

      layerpick train ./my-model --layer 10,11 --trl lr_scheduler_type=cosine --trl warmup_steps=5
    """
    from rich.console import Console

    from layerpick.selector.progress import Silent, reporting
    from layerpick.selector.race.report import print_race
    from layerpick.selector.race.write import write_race
    from layerpick.selector.training_run.report import sentences
    from layerpick.selector.training_run.run import train as make_run
    from layerpick.training.processes import join, leave

    group = join(model.device)
    with reporting() if group.first else nullcontext(Silent()) as reporter:
        trained = make_run(
            model,
            task,
            layer=strategy,
            suggestion=suggestion,
            settings=settings,
            algorithm=algorithm,
            sampling=sampling,
            rl=rl,
            heldout=heldout,
            choice=choice,
            racing=racing,
            seed=seed,
            sweeps=sweeps,
            out=out,
            reporter=reporter,
        )
    leave()
    if not group.first:
        return
    if trained.race:
        write_race(trained.race)
    if as_json:
        sys.stdout.write(trained.result.model_dump_json(indent=2) + "\n")
        return
    console = Console()
    if trained.race:
        print_race(trained.race.result, console)
    for line in sentences(trained):
        console.print(line, soft_wrap=True, highlight=False)
    print(f"Written: {trained.folder.path}", file=sys.stderr)


@with_groups
def apply(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or its layer_delta.safetensors.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="New folder for the merged model.", file_okay=False)],
    loading: LoadingChoice,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base model, if it is no longer where it was in training.", show_default=False
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16 or float16; that of training if left out.", show_default=False
        ),
    ] = None,
) -> None:
    """Merge a run's trained layer into its base model: an ordinary Hugging Face folder.

    Refuses a base model with other weights than those that the layer was trained in.

    Example: layerpick apply runs/reference-math/math-grpo/3-seed0 --out my-model
    """
    from layerpick.training.runs.delta import apply as apply_delta

    origin = apply_delta(
        run,
        out,
        base,
        dtype=dtype,
        device="cpu",
        **vars(loading),
    )
    print(f"Written: {out} ({origin.base_model} with {origin.trained} trained)", file=sys.stderr)
