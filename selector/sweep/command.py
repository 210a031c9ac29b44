"""`layerpick sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector.options import with_groups
from layerpick.selector.settings import (
    TRAINING_SAMPLING,
    AlgorithmName,
    HeldOutChoice,
    Json,
    ModelChoice,
    RlSettings,
    SamplingChoice,
    TaskName,
    TaskSettings,
)
from layerpick.selector.sweep.settings import ClusterChoice, SweepChoice
from layerpick.training.errors import LayerpickError


@with_groups
def sweep(
    model: ModelChoice,
    choice: SweepChoice,
    settings: TaskSettings,
    rl: RlSettings,
    heldout: HeldOutChoice,
    cluster: ClusterChoice,
    sampling: SamplingChoice = TRAINING_SAMPLING,
    task: TaskName = "math",
    algorithm: AlgorithmName = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of all sweeps; with --show, of their pictures and reports, which lie "
            "beside the sweeps if left out.",
            show_default="sweeps",
            file_okay=False,
        ),
    ] = None,
    show: Annotated[
        Path | None, typer.Option(help="Measure nothing; read the sweeps in this folder.")
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, and nothing else, to stdout.")
    ] = False,
) -> None:
    """Measure which layer RL should train: every layer alone, against full-parameter RL.

    Scores the model, trains it in full and each layer alone, and scores every result on held-out \
prompts. All are trained at every learning rate of a grid; the best one for each is chosen on one \
half of the held-out prompts and scored on the other, both ways round. What is in the folder \
already is not measured again, so a sweep can be stopped and started at any time, and several can \
fill one folder.

    Examples:

      layerpick sweep --seeds 3

      layerpick sweep HuggingFaceTB/SmolLM2-135M --lr-grid 1e-5,3e-5,1e-4 --layers every:5

      layerpick sweep Qwen/Qwen3-4B --seeds 3 --on ray://head:10001

      layerpick sweep --show sweeps
    """
    from layerpick.calibration.sweeps.store import sweep_folders
    from layerpick.selector.progress import reporting
    from layerpick.selector.sweep.run import measure_sweep

    if as_json and as_csv:
        raise LayerpickError("Choose one of --json and --csv.")
    if show is not None:
        return _print(sweep_folders(show), as_json, as_csv, out)
    with reporting() as reporter:
        folder = measure_sweep(
            model,
            task,
            settings,
            algorithm,
            sampling,
            rl,
            heldout,
            choice,
            out or Path("sweeps"),
            reporter,
            cluster,
        )
    return _print([folder], as_json, as_csv)


def _print(folders: list[Path], as_json: bool, as_csv: bool, out: Path | None = None) -> None:
    from rich.console import Console

    from layerpick.calibration.sweeps.measured import Reading, read_sweep
    from layerpick.calibration.sweeps.store import PICTURE, read_folder
    from layerpick.selector.pages.html import REPORT, write_page
    from layerpick.selector.sweep import report as sweep_report
    from layerpick.selector.sweep.page import sweep_page
    from layerpick.selector.sweep.picture import draw_sweep

    readings: dict[Path, Reading] = {}
    for folder in folders:
        try:
            readings[folder] = read_sweep(read_folder(folder))
        except LayerpickError as error:
            if folder == folders[-1] and not readings:
                raise
            print(f"{folder} is left out: {error}", file=sys.stderr)
    if as_json:
        sys.stdout.write(sweep_report.to_json(list(readings.values())))
        return
    if as_csv:
        sys.stdout.write(sweep_report.to_csv(list(readings.values())))
        return
    for folder, reading in readings.items():
        sweep_report.print_sweep(reading, Console())
        place = folder if out is None else out / folder.parent.name / folder.name
        draw_sweep(reading, place / PICTURE)
        write_page(sweep_page(reading), place / REPORT)
        print(f"Written: {place / PICTURE} and {place / REPORT}", file=sys.stderr)
