"""`layerpick export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector.export.table import TARGETS


def export(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="SUGGESTION|RUN", help="A suggestion.json, or the folder of a run.", exists=True
        ),
    ],
    to: Annotated[str, typer.Option(help=f"{', '.join(TARGETS)}.", show_default=False)],
    layer: Annotated[
        str | None,
        typer.Option(
            help="Other layers than those picked or trained: a number, numbers as 3,4, top:3 (of "
            "a suggestion), middle:5.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the files; export/TO beside what is exported if left out.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The model, if it is no longer where it was.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")
    ] = False,
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Accept pickled weights (.bin); none are loaded."),
    ] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run code from the model's repository."),
    ] = False,
) -> None:
    """Write what another trainer needs to train exactly the chosen layer.

    Names of modules are the model's own. Every file says which version of the trainer it was made \
for.

    Examples:

      layerpick export layerpick-out/suggestion.json --to trl

      layerpick export runs/my-model/math-grpo/3-seed0 --to axolotl --out configs
    """
    from rich.console import Console

    from layerpick.selector.export import report
    from layerpick.selector.export.run import export as make_export

    exported = make_export(
        what,
        to,
        layer=layer,
        out=out,
        base=base,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        sys.stdout.write(report.to_json(exported))
        return
    console = Console()
    for line in report.sentences(exported):
        console.print(line, soft_wrap=True, highlight=False)
    print(f"Written: {', '.join(map(str, exported.files))}", file=sys.stderr)
