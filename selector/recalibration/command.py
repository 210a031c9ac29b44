"""`layerpick calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector.settings import Json


def calibrate(
    sweeps: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of your own sweeps, added to the shipped ones; may be given several "
            "times. The shipped ones alone if left out.",
            show_default=False,
        ),
    ] = None,
    regressor: Annotated[
        str | None,
        typer.Option(help="file.py:Class: a regressor of your own, beside the built-in ones."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the predictors. `layerpick suggest` looks in the one used if left "
            "out, ~/.cache/layerpick/predictors, before the shipped ones.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    races: Annotated[
        bool,
        typer.Option("--races", help="Learn when arms of a race may leave, too; takes minutes."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit the predictor anew with your own sweeps added to the shipped ones.

    Says how accuracy on models left out changes. The old predictor stays until the new one is \
written whole.

    Examples:

      layerpick calibrate --sweeps sweeps

      layerpick calibrate --sweeps sweeps --out predictors --json
    """
    from rich.console import Console

    from layerpick.selector.progress import reporting
    from layerpick.selector.recalibration import report as calibrate_report
    from layerpick.selector.recalibration.run import calibrate as make_predictors

    with reporting() as reporter:
        found = make_predictors(
            sweeps or (), out=out, regressor=regressor, races=races, reporter=reporter
        )
    if as_json:
        sys.stdout.write(calibrate_report.to_json(found))
    else:
        calibrate_report.print_calibration(found, Console())
