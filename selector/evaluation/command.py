"""`layerpick evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector.settings import Json
from layerpick.training.errors import LayerpickError


def evaluate(
    sweeps: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of sweeps with features; may be given several times. The shipped ones "
            "if left out.",
            show_default=False,
        ),
    ] = None,
    leave_out: Annotated[
        str, typer.Option(help="model, family, task or algorithm: what to leave out in turn.")
    ] = "model",
    level: Annotated[
        str | None,
        typer.Option(
            help="weights, backward, one_step, off_policy or on_policy: what is affordable. All "
            "if left out.",
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
            help="Folder for pictures and report.html; none are made if left out.", file_okay=False
        ),
    ] = None,
    race: Annotated[
        bool, typer.Option("--race", help="Replay races on the stored curves instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure how well the predictor predicts models that it has never seen.

    Every model is left out in turn; the predictor is chosen and fitted anew on the others and \
asked about it. Beside it stand the rankings that a person would use instead.

    Examples:

      layerpick evaluate

      layerpick evaluate --leave-out family --level backward

      layerpick evaluate --sweeps sweeps --out evaluation

      layerpick evaluate --race
    """
    if race and (out is not None or regressor is not None or leave_out != "model"):
        raise LayerpickError(
            "--race leaves models out and writes no files: leave --out, --regressor and "
            "--leave-out out."
        )
    from rich.console import Console

    from layerpick.selector.evaluation import report as evaluate_report
    from layerpick.selector.evaluation.page import evaluation_page
    from layerpick.selector.evaluation.picture import draw_evaluation
    from layerpick.selector.evaluation.run import evaluate as make_evaluation
    from layerpick.selector.pages.html import REPORT, write_page
    from layerpick.selector.progress import reporting

    if race:
        from layerpick.selector.race.replays import print_replays, replay_races
        from layerpick.selector.race.replays import to_json as replays_to_json

        with reporting() as reporter:
            replays = replay_races(sweeps, level=level, reporter=reporter)
        if as_json:
            sys.stdout.write(replays_to_json(replays))
        else:
            print_replays(replays, Console())
        return
    with reporting() as reporter:
        found = make_evaluation(
            sweeps, leave_out=leave_out, level=level, regressor=regressor, reporter=reporter
        )
    if as_json:
        sys.stdout.write(evaluate_report.to_json(found))
    else:
        evaluate_report.print_evaluation(found, Console())
    if out is not None:
        for population, evaluation in found.evaluations.items():
            for path in draw_evaluation(evaluation, out / population.replace(" ", "-")):
                print(f"Written: {path}", file=sys.stderr)
        write_page(evaluation_page(found), out / REPORT)
        print(f"Written: {out / REPORT}", file=sys.stderr)
