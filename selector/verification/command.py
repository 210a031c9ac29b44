"""`layerpick verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerpick.selector.settings import Json

if TYPE_CHECKING:
    from layerpick.selector.verification.result import Verification

JSON_FILE, PICTURE, PAGE = "verification.json", "verification.png", "verification.html"


def verify(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|SUGGESTION", help="Folder of a run, or a suggestion.json.", exists=True
        ),
    ],
    sweep: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a measured sweep, or of several of which one fits.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    full: Annotated[
        str | None,
        typer.Option(
            help="Without a sweep: the folder of a full-parameter run (--layer all), or its score, "
            "as 0.83 or 0.83,0.02 (with standard error).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for verification.json, .png and .html; beside what is verified if left "
            "out.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set prediction beside measurement: was the pick right, and by how much?

    Gives predicted and measured contribution, whether the interval held, the pick's rank among \
the measured layers, and its regret.

    Examples:

      layerpick verify layerpick-out/suggestion.json --sweep sweeps

      layerpick verify runs/my-model/math-grpo/3-seed0 --full runs/my-model/math-grpo/all-seed0
    """
    from layerpick.selector.verification.verify import verify as make_verification

    found = make_verification(what, sweep=sweep, full=full)
    place = out or (what if what.is_dir() else what.parent)
    write(found, place)
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
        return
    from rich.console import Console

    from layerpick.selector.verification.report import print_verification

    print_verification(found, Console())
    print(f"Written: {JSON_FILE}, {PICTURE} and {PAGE} in {place}", file=sys.stderr)


def write(found: Verification, place: Path) -> None:
    """Keep a verification as JSON, as a picture and as a page."""
    from layerpick.selector.pages.html import write_page
    from layerpick.selector.verification.page import verification_page
    from layerpick.selector.verification.picture import draw_verification
    from layerpick.training.files import write_text

    write_text(place / JSON_FILE, found.model_dump_json(indent=2) + "\n")
    draw_verification(found, place / PICTURE)
    write_page(verification_page(found), place / PAGE)
