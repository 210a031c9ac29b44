"""`layerpick vote`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector.options import with_groups
from layerpick.selector.settings import Json, LoadingChoice, TaskSettings


@with_groups
def vote(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN ...", help="Folders of runs of one model.", exists=True),
    ],
    settings: TaskSettings,
    loading: LoadingChoice,
    base: Annotated[
        str | None, typer.Option(help="The base model, if it is no longer where it was.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto (CUDA if there is one), cpu, cuda, cuda:1, …")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(help="Episodes decoded at a time.", min=1)] = 2048,
    out: Annotated[
        Path | None, typer.Option(help="Folder for vote.json; none is written if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let several single-layer models answer: the majority's answer counts.

    Every run answers the held-out prompts that it was scored on. Gives the majority's score \
beside each run's, how far they agree, and what the vote costs.

    Examples:

      layerpick vote runs/reference-math/math-grpo/3-seed0 runs/reference-math/math-grpo/4-seed0
    """
    from rich.console import Console

    from layerpick.selector.progress import reporting
    from layerpick.selector.voting.report import print_vote
    from layerpick.selector.voting.run import vote as hold_vote
    from layerpick.training.files import write_text

    with reporting() as reporter:
        found = hold_vote(
            runs,
            settings,
            base=base,
            device=device,
            batch_size=batch_size,
            loading=loading,
            reporter=reporter,
        )
    text = found.model_dump_json(indent=2) + "\n"
    if out is not None:
        write_text(out / "vote.json", text)
        print(f"Written: {out / 'vote.json'}", file=sys.stderr)
    if as_json:
        sys.stdout.write(text)
        return
    print_vote(found, Console())
