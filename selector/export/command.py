"""`layerpick export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector.export.table import TARGETS
from layerpick.selector.options import with_groups
from layerpick.selector.settings import Json, TrustChoice


@with_groups
def export(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="SUGGESTION|RUN", help="A suggestion.json, or the folder of a run.", exists=True
        ),
    ],
    to: Annotated[str, typer.Option(help=f"{', '.join(TARGETS)}.", show_default=False)],
    trust: TrustChoice,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Other layers than those picked or trained: a number, numbers as 3,4, top:3 (of "
            "a suggestion), middle:5."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the files; export/TO beside what is exported if left out.",
            file_okay=False,
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The model, if it is no longer where it was.")
    ] = None,
    as_json: Json = False,
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
        allow_pickle=trust.allow_pickle,
        trust_remote_code=trust.trust_remote_code,
    )
    if as_json:
        sys.stdout.write(report.to_json(exported))
        return
    console = Console()
    for line in report.sentences(exported):
        console.print(line, soft_wrap=True, highlight=False)
    print(f"Written: {', '.join(map(str, exported.files))}", file=sys.stderr)
