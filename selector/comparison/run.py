"""From folders of sweeps, and published ones, to how alike they rank layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerpick.calibration.judging.agreement import (
    Agreement,
    Difference,
    Pair,
    RankedSweep,
    Summary,
    agreements,
    stepped_up,
    summarise,
)
from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.sweeps.features import read_features
from layerpick.calibration.sweeps.measured import Reading, read_sweep
from layerpick.calibration.sweeps.population import population_of
from layerpick.calibration.sweeps.published import published_sweeps
from layerpick.calibration.sweeps.store import read_folder, sweep_folders
from layerpick.calibration.sweeps.values import Sweep
from layerpick.selector.progress import Reporter, Silent
from layerpick.training.errors import LayerpickError

PUBLISHED, SHIPPED = "published", "shipped"
"""Names that stand for sweeps that come with layerpick."""


@dataclass(frozen=True)
class Comparison:
    """Sweeps side by side."""

    sweeps: tuple[RankedSweep, ...]
    agreements: Mapping[Pair, Agreement]
    """By the places of two sweeps, the smaller first; none where they have too little in common."""
    summaries: Mapping[tuple[Difference, str], Summary]
    """By what tells the two sweeps apart and by population."""


def compare(sweeps: Sequence[str], *, reporter: Reporter | None = None) -> Comparison:
    """Compare all sweeps named: folders of one or several, `published` or `shipped`.

    Sweeps that are not finished, or in which no layer gained, are left out with a note. Raises
    LayerpickError when fewer than two can be compared.
    """
    reporter = reporter or Silent()
    found = tuple(sweep for name in sweeps for sweep in _named(name, reporter))
    if len(found) < 2:
        raise LayerpickError(
            f"{', '.join(sweeps)}: too few sweeps to compare ({len(found)}): name two or more, as "
            f"folders, `{PUBLISHED}` or `{SHIPPED}`."
        )
    alike = agreements(found)
    return Comparison(found, alike, summarise(found, alike))


def _named(name: str, reporter: Reporter) -> Iterator[RankedSweep]:
    if name == PUBLISHED and not Path(name).exists():
        yield from map(_of_published, published_sweeps())
        return
    shipped = name == SHIPPED and not Path(name).exists()
    for folder in sweep_folders(SHIPPED_SWEEPS if shipped else Path(name)):
        try:
            reading = read_sweep(read_folder(folder))
        except LayerpickError as error:
            reporter.note(f"Left out: {folder}: {error}")
            continue
        if reading.nothing_gained:
            reporter.note(f"Left out: {folder}: {reading.nothing_gained}")
            continue
        table = read_features(folder)
        yield _of_reading(reading, folder, table.family if table else None)


def _of_reading(reading: Reading, folder: Path, family: str | None) -> RankedSweep:
    settings = reading.settings
    layers = np.array(sorted(reading.layers))
    ceiling, seeds = reading.noise_ceiling, len(reading.full.seeds)
    return RankedSweep(
        name=f"{settings.model.removesuffix('.gguf')} · {folder.name}",
        model=settings.weights_hash,
        family=family,
        population=population_of(settings.model),
        task=settings.task,
        data=settings.data_hash,
        algorithm=settings.algorithm,
        layers=layers,
        depths=layers / max(1, settings.layers - 1),
        scores=np.array([reading.layers[layer].score.mean for layer in layers.tolist()]),
        ceiling=None if ceiling is None else stepped_up(ceiling, seeds),
    )


def _of_published(sweep: Sweep) -> RankedSweep:
    layers = np.array(sorted(sweep.layers))
    return RankedSweep(
        name=f"{sweep.model.split('/')[-1]} · {sweep.dataset}-{sweep.algorithm}",
        model=sweep.model,
        family=_family(sweep.model),
        population="pretrained",
        task=sweep.task,
        data=sweep.dataset,
        algorithm=sweep.algorithm,
        layers=layers,
        depths=layers / (sweep.num_layers - 1),
        scores=np.array([sweep.layers[layer].mean for layer in layers.tolist()]),
        ceiling=None,
    )


def _family(model: str) -> str:
    """The configuration's model type of a published model: Qwen2.5 is built as Qwen2."""
    return "qwen3" if "Qwen3" in model else "qwen2"
