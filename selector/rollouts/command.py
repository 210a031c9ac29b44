"""`layerpick rollouts`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from layerpick.selector.options import with_groups
from layerpick.selector.settings import (
    Json,
    ModelChoice,
    SamplingChoice,
    Seed,
    TaskName,
    TaskSettings,
)


@with_groups
def rollouts(
    model: ModelChoice,
    settings: TaskSettings,
    sampling: SamplingChoice,
    task: TaskName = "math",
    prompts: Annotated[int, Option(help="Prompts to show.", min=1)] = 4,
    samples: Annotated[int, Option(help="Completions of each.", min=1)] = 2,
    saved: Annotated[
        Path | None,
        Option("--rollouts", help="Show those of this file, from `suggest --save-rollouts`."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show what the model says: prompts as rendered, completions, answers and rewards.

    A look at a few before anything long: is the model asked as it wants to be, does it come to an \
end, and is its answer read as it was meant?

    Examples:

      layerpick rollouts Qwen/Qwen3-4B --task math

      layerpick rollouts ./my-model --dataset rows.jsonl --prompts 2 --json
    """
    from rich.console import Console

    from layerpick.selector.progress import reporting
    from layerpick.selector.rollouts.report import print_shown
    from layerpick.selector.rollouts.run import rollouts as show

    with reporting() as reporter:
        shown = show(
            model,
            task,
            settings=settings,
            sampling=sampling,
            prompts=prompts,
            samples=samples,
            saved=saved,
            seed=seed,
            reporter=reporter,
        )
    if as_json:
        sys.stdout.write(shown.model_dump_json(indent=2) + "\n")
        return
    print_shown(shown, Console())
