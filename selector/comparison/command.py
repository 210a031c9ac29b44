"""`layerpick compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector.settings import Json

PICTURE = "agreement.png"


def compare(
    sweeps: Annotated[
        list[str],
        typer.Argument(
            help="Folders of one or several sweeps; `shipped` and `published` are those that come "
            "with layerpick."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a heat map; none is drawn if left out.", file_okay=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare sweeps: do they rank the layers alike?

    Sweeps of one model are compared layer by layer, those of different models by relative depth. \
Beside each rank correlation stands its noise ceiling: what two sweeps with the same true ranking \
would reach.

    Examples:

      layerpick compare sweeps/my-model/math-grpo sweeps/my-model/code-grpo

      layerpick compare sweeps shipped published --out comparison
    """
    from rich.console import Console

    from layerpick.selector.comparison import report
    from layerpick.selector.comparison.picture import draw_comparison
    from layerpick.selector.comparison.run import compare as make_comparison
    from layerpick.selector.progress import reporting

    with reporting() as reporter:
        found = make_comparison(sweeps, reporter=reporter)
    if as_json:
        sys.stdout.write(report.to_json(found))
    else:
        report.print_comparison(found, Console())
    if out is not None:
        draw_comparison(found, out / PICTURE)
        print(f"Written: {out / PICTURE}", file=sys.stderr)
