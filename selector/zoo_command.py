"""`layerpick zoo build` and `layerpick zoo list`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector import options
from layerpick.selector.progress import Reporter
from layerpick.training.errors import LayerpickError

app = typer.Typer(
    help="Small models made from a seed, on which sweeps take minutes.", no_args_is_help=True
)


@app.command("list")
def list_models(as_json: options.Json = False) -> None:
    """List the models of the zoo: family, layers, what they are asked, what RL has to mend.

    Example: layerpick zoo list
    """
    from rich.console import Console
    from rich.table import Table

    from layerpick.calibration.zoo import ZOO

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


@app.command("build")
def build(
    models: Annotated[
        list[str], typer.Argument(help="Names from `layerpick zoo list`, or all.", metavar="MODEL…")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the models.", file_okay=False)] = Path("zoo"),
) -> None:
    """Train models of the zoo from their seeds, each into its own folder.

    A model that lies in the folder already is not made again.

    Example: layerpick zoo build qwen2-6-sum-noise && layerpick sweep zoo/qwen2-6-sum-noise
    """
    from layerpick.calibration.zoo import ZOO
    from layerpick.selector.progress import reporting

    names = list(ZOO) if models == ["all"] else models
    for name in names:
        if name not in ZOO:
            raise LayerpickError(
                f"The zoo has no model '{name}': `layerpick zoo list` names those it has."
            )
    with reporting() as reporter:
        for name in names:
            recipe, folder = ZOO[name].recipe, out / name
            if (folder / "config.json").is_file():
                reporter.note(f"{folder} is there already.")
                continue
            trained = recipe.make(folder, report=_bar(reporter, name, recipe.settings.steps))
            reporter.note(f"{folder}: loss {trained.losses[-1]:.3f}")


def _bar(reporter: Reporter, name: str, steps: int) -> Callable[[int, float], None]:
    done = reporter.stage(name, steps)
    return lambda _step, _loss: done(1)
