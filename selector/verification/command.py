"""`layerpick verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerpick.selector.settings import Json
from layerpick.training.errors import LayerpickError

if TYPE_CHECKING:
    from layerpick.selector.verification.result import Verification

JSON_FILE, PICTURE = "verification.json", "verification.png"


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
            help="Folder for verification.json and verification.png; beside what is verified if "
            "left out.",
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
    found = _verified(what, sweep, full)
    place = out or (what if what.is_dir() else what.parent)
    write(found, place)
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
        return
    from rich.console import Console

    from layerpick.selector.verification.report import print_verification

    print_verification(found, Console())
    print(f"Written: {place / JSON_FILE} and {place / PICTURE}", file=sys.stderr)


def write(found: Verification, place: Path) -> None:
    """Keep a verification as JSON and as a picture."""
    from layerpick.selector.verification.picture import draw_verification
    from layerpick.training.files import write_text

    write_text(place / JSON_FILE, found.model_dump_json(indent=2) + "\n")
    draw_verification(found, place / PICTURE)


def _verified(what: Path, sweep: Path | None, full: str | None) -> Verification:
    from layerpick.selector.suggestion.result import read_suggestion
    from layerpick.selector.training_run.advice import SUGGESTION_FILE
    from layerpick.selector.verification import run as verifying
    from layerpick.selector.verification.find import find_reading, full_score
    from layerpick.training.runs.folder import RunFolder

    if sweep is not None and full is not None:
        raise LayerpickError("Give --sweep or --full, not both: a sweep has its own full run.")
    if what.is_file():
        suggestion = read_suggestion(what)
        if sweep is None:
            raise LayerpickError("A suggestion is verified by a sweep: give its folder, --sweep.")
        reading = find_reading(sweep, *suggestion.about)
        if reading is None:
            raise LayerpickError(f"{sweep} holds no sweep of {suggestion.model.id}, as suggested.")
        return verifying.verify_suggestion(suggestion, reading)
    run = RunFolder(what)
    # `layerpick auto` keeps it one folder up.
    kept = [place / SUGGESTION_FILE for place in (what, what.parent)]
    advice = next((read_suggestion(path) for path in kept if path.is_file()), None)
    if sweep is None:
        return verifying.verify_pair(run, advice, full_score(full) if full else None)
    settings = run.description().settings
    reading = find_reading(sweep, *settings.about)
    if reading is None:
        raise LayerpickError(f"{sweep} holds no sweep of {settings.model}, as trained.")
    return verifying.verify_run(run, advice, reading)
