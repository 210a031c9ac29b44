"""Where measurements come from: a stored sweep, or a full-parameter run or its score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.sweeps.measured import Reading, read_sweep
from layerpick.calibration.sweeps.published import find_sweep
from layerpick.calibration.sweeps.store import read_folder, read_settings, sweep_folders
from layerpick.calibration.sweeps.values import Score, Sweep
from layerpick.selector.verification.run import finished, in_words
from layerpick.training.errors import LayerpickError
from layerpick.training.runs.folder import RunFolder
from layerpick.training.values import LARGEST

OWN_SWEEPS = Path("sweeps")
"""Where `layerpick sweep` writes unless told otherwise."""


def find_reading(
    root: Path, weights_hash: str, task: str, algorithm: str, data_hash: str
) -> Reading | None:
    """The finished sweep below a folder that is about these weights, task, algorithm and data.

    Where there is none of this data, the first of other data counts.
    """
    if not root.is_dir():
        return None
    found: dict[str, Path] = {}
    for folder in sweep_folders(root):
        *about, data = read_settings(folder).about
        if about == [weights_hash, task, algorithm]:
            found.setdefault(data, folder)
    if not found:
        return None
    return read_sweep(read_folder(found.get(data_hash, next(iter(found.values())))))


def find_measured(
    name: str,
    weights_hash: str,
    task: str,
    algorithm: str,
    data_hash: str,
    own: Path = OWN_SWEEPS,
    note: Callable[[str], None] = lambda _: None,
) -> Sweep | None:
    """A measured sweep of this model, task, algorithm and data: published, shipped, or one's own.

    Its `source` says whose it is. A sweep whose contributions are not defined does not count, nor
    does one of other data, but for published ones. What cannot be read is none: `note` is told why.
    """
    published = find_sweep(name, task, algorithm)
    if published is not None:
        return published
    for root, whose in ((SHIPPED_SWEEPS, "shipped with layerpick"), (own, f"found in {own}")):
        try:
            reading = find_reading(root, weights_hash, task, algorithm, data_hash)
        except LayerpickError as error:
            note(f"Sweeps in {root} are passed over: {error}")
            continue
        if reading is None or reading.settings.data_hash != data_hash:
            continue
        if reading.refusal is None:
            source = f"`layerpick sweep`, {whose}, {reading.in_words}"
            return replace(reading.sweep, source=source)
    return None


def full_score(given: str) -> RunFolder | Score:
    """`--full`: the folder of a full-parameter run, or a score as 0.83 or 0.83,0.02.

    Raises LayerpickError for anything else.
    """
    if Path(given).is_dir():
        run = RunFolder(Path(given))
        description, _ = finished(run)
        if description.layers is not None:
            raise LayerpickError(
                f"{given} trained {in_words(description.layers)}, not everything: --full needs "
                f"a run with --layer all."
            )
        return run
    numbers = [_finite(part) for part in given.split(",")]
    mean, error = (*numbers, None)[:2]
    if len(numbers) > 2 or mean is None or (len(numbers) == 2 and (error is None or error < 0)):
        raise LayerpickError(
            f"--full '{given}' is neither the folder of a run nor a score as 0.83 or 0.83,0.02 "
            f"(with its standard error)."
        )
    return Score(mean, error)


def _finite(text: str) -> float | None:
    """The number, if it is one that scores can be."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= LARGEST else None
