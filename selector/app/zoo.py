"""`layerpick zoo build` and `layerpick zoo list`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerpick.selector.options import with_groups
from layerpick.selector.settings import Json
from layerpick.selector.sweep.settings import ClusterChoice
from layerpick.training.errors import LayerpickError

if TYPE_CHECKING:
    from layerpick.selector.progress import Reporter

app = typer.Typer(
    help="Small models made from a seed, on which sweeps take minutes.", no_args_is_help=True
)


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models of the zoo: family, layers, what they are asked, what RL has to mend.

    Example: layerpick zoo list
    """
    from rich.console import Console
    from rich.table import Table

    from layerpick.training.pretraining.zoo import ZOO

    if as_json:
        listed = [
            {
                "name": name,
                "family": model.recipe.architecture.family,
                "layers": model.recipe.architecture.layers,
                "width": model.recipe.architecture.width,
                "task": model.recipe.task["task"],
                "skill": model.skill,
                "gain": model.gain,
            }
            for name, model in ZOO.items()
        ]
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
        return
    table = Table("family, layers, skill and what RL has to mend", "width", "task")
    for name, model in ZOO.items():
        width, task = model.recipe.architecture.width, model.recipe.task["task"]
        table.add_row(name, str(width), str(task))
    Console().print(table)


Models = Annotated[
    list[str], typer.Argument(help="Names from `layerpick zoo list`, or all.", metavar="MODEL…")
]
Folder = Annotated[Path, typer.Option("--zoo", help="Folder of the models.", file_okay=False)]


@app.command("build")
def build(models: Models, zoo: Folder = Path("zoo")) -> None:
    """Train models of the zoo from their seeds, each into its own folder.

    A model that lies in the folder already is not made again.

    Example: layerpick zoo build qwen2-6-sum-noise
    """
    from layerpick.selector.progress import reporting

    with reporting() as reporter:
        for name in _names(models):
            _build(name, zoo, reporter)


@app.command("sweep")
@with_groups
def sweep(
    models: Models,
    cluster: ClusterChoice,
    zoo: Folder = Path("zoo"),
    seeds: Annotated[int, typer.Option(help="Repetitions of everything.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder of all sweeps.", file_okay=False)] = Path(
        "sweeps"
    ),
) -> None:
    """Sweep models of the zoo with the settings of the shipped sweeps; builds those missing.

    Each model is swept with every algorithm that the zoo names for it, as `layerpick sweep` \
would, and all probes are measured. What is in the folder already is not measured again.

    Example: layerpick zoo sweep all --out calibration/data/sweeps
    """
    from layerpick.selector.progress import reporting
    from layerpick.selector.settings import (
        TRAINING_SAMPLING,
        HeldOutChoice,
        ModelChoice,
        RlSettings,
        TaskSettings,
    )
    from layerpick.selector.sweep.run import measure_sweep
    from layerpick.selector.sweep.settings import SweepChoice
    from layerpick.training.pretraining.zoo import SWEEP_STEPS, ZOO

    names = _names(models)
    with reporting() as reporter:
        for name in names:
            folder, model = _build(name, zoo, reporter), ZOO[name]
            for algorithm in model.algorithms:
                measured = measure_sweep(
                    ModelChoice(str(folder)),
                    str(model.recipe.task["task"]),
                    TaskSettings(),
                    algorithm,
                    TRAINING_SAMPLING,
                    RlSettings(steps=SWEEP_STEPS),
                    HeldOutChoice(),
                    SweepChoice(seeds=seeds, shared_lr=True),
                    out,
                    reporter,
                    cluster,
                )
                reporter.note(f"{measured} is measured.")


def _names(models: list[str]) -> list[str]:
    from layerpick.training.pretraining.zoo import ZOO

    names = list(ZOO) if models == ["all"] else models
    for name in names:
        if name not in ZOO:
            raise LayerpickError(
                f"The zoo has no model '{name}': `layerpick zoo list` names those it has."
            )
    return names


def _build(name: str, zoo: Path, reporter: Reporter) -> Path:
    """Make a model unless it is there; returns its folder."""
    from layerpick.training.pretraining.zoo import ZOO

    recipe, folder = ZOO[name].recipe, zoo / name
    if not (folder / "config.json").is_file():
        done = reporter.stage(name, recipe.settings.steps)
        recipe.make(folder, report=lambda _step, _loss: done(1))
    return folder
