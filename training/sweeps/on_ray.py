"""A sweep's passes on a Ray cluster.

One pass is one task. A worker makes the bench once, keeps it for the passes that follow, and takes
as many of a pass's policies as fit there; the rest comes back and is handed out again. Records
travel as values, so no file system is shared: the driver, which keeps them, needs neither a GPU nor
the model.

Limits: the same version of layerpick on every node; a reward's file is taken along, but nothing
that it imports.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from layerpick.training.errors import LayerpickError
from layerpick.training.progress import Silent
from layerpick.training.sweeps.multiplexed import Bench, pass_name
from layerpick.training.sweeps.parcels import Parcel, pack, unpack
from layerpick.training.sweeps.passes import (
    Reporter,
    SweepFacts,
    engine_of,
    facts_of,
    measure_what_fits,
    note_failures,
    policies_in_pass,
)
from layerpick.training.sweeps.ray_tasks import Call, RayTasks, assigned_device
from layerpick.training.sweeps.records import RunKey, RunRecord, RunSettings

MEMORY_OF_A_WORKER = 10**9
"""Bytes of Python, PyTorch and transformers."""
COPIES_OF_THE_WEIGHTS = 3
"""Bytes of a task beyond that, in sizes of the weight files: bfloat16 files as float32 weights,
and half as much again for what is trained."""


class Recipe(Protocol):
    """Makes a bench where it is called; plain values, so that it may travel and be compared."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Local files and folders that it names."""

    def make(self, places: Mapping[Path, Path], device: str | None) -> Bench:
        """The bench, with files where they are now; `device` None: as chosen."""


@dataclass(frozen=True)
class Job:
    """What every task of a sweep is about."""

    recipe: Recipe
    parcels: tuple[tuple[Path, Parcel], ...]
    """Empty where workers see the driver's files."""
    engine: str


class RayPasses:
    """Passes of a bench that workers make by a recipe."""

    side_by_side: ClassVar[bool] = True

    def __init__(
        self, tasks: RayTasks, recipe: Recipe, engine: str, size: int | None, reporter: Reporter
    ):
        """Ask a worker for the facts; `size` None: each worker decides how many policies fit.

        Raises LayerpickError for whatever keeps the bench from being made.
        """
        self._tasks = tasks
        self._size = size
        self._reporter = reporter
        self._warned = False
        files = () if tasks.local else recipe.files
        self._job = Job(recipe, tuple((path, pack(path, tasks)) for path in files), engine)
        self.facts: SweepFacts
        self.facts, weights = self._value("facts", _facts, (self._job,))
        tasks.require(MEMORY_OF_A_WORKER + COPIES_OF_THE_WEIGHTS * weights)

    def measure(self, families: Sequence[Sequence[RunKey]]) -> Iterator[list[RunRecord]]:
        """Records of one pass after another, as they end.

        Raises LayerpickError for passes that failed, once all others have ended.
        """
        steps = self.facts.settings.steps
        passes = [part for keys in families for part in self._split(keys, families)]
        for keys in passes:
            self._submit(keys)
        tick = self._reporter.stage(f"{len(passes)} passes on Ray", steps * len(passes))
        failures = []
        for ended in self._tasks.ended(tick):
            keys = ended.call.arguments[1]
            if ended.failure is not None:
                failures.append(f"{pass_name(keys)}: {ended.failure}")
                self._reporter.note(f"Failed: {failures[-1]}.")
                continue
            records, notes = ended.value
            for note in notes:
                self._reporter.note(note)
            note_failures(records, self._reporter)
            yield records
            measured = {record.run for record in records}
            if rest := [key for key in keys if key not in measured]:
                self._submit(rest)
        if failures:
            raise LayerpickError(
                f"{len(failures)} of {len(passes)} passes failed; the others are kept, and the "
                f"same command tries again what is missing. The first was {failures[0]}."
            )

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What an importable function of the bench, these arguments and a reporter returns."""
        value, notes = self._value(
            function.__name__.strip("_"), _on_bench, (self._job, function, arguments)
        )
        for note in notes:
            self._reporter.note(note)
        return value

    def _split(
        self, keys: Sequence[RunKey], families: Sequence[Sequence[RunKey]]
    ) -> list[list[RunKey]]:
        """Passes of a family, so many that all of the cluster has something to do."""
        runs = sum(len(family) for family in families)
        size = self._size or max(1, -(-runs // self._tasks.slots))
        return [list(keys[start : start + size]) for start in range(0, len(keys), size)]

    def _submit(self, keys: Sequence[RunKey]) -> None:
        self._warn()
        arguments = (self._job, tuple(keys), self._size, self.facts.settings)
        self._tasks.submit(
            Call(pass_name(keys), _measure, arguments, steps=self.facts.settings.steps)
        )

    def _value(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self._warn()
        self._tasks.submit(Call(name, function, arguments))
        (ended,) = self._tasks.ended(self._reporter.stage(f"{name} on Ray", 1))
        if ended.failure is not None:
            raise LayerpickError(f"{ended.failure}.")
        return ended.value

    def _warn(self) -> None:
        if not self._warned and (warning := self._tasks.check()):
            self._reporter.note(warning)
            self._warned = True


class _Notes(Silent):
    """A reporter whose sentences travel back with the result; `on_step` is told of the steps."""

    def __init__(self, on_step: Callable[[int], None] = lambda _: None):
        self.texts: list[str] = []
        self._on_step = on_step

    def stage(self, name: str, total: int) -> Callable[[int], None]:  # noqa: ARG002
        """One bar stands for all workers."""
        return self._on_step

    def note(self, text: str) -> None:
        """Keep the sentence."""
        self.texts.append(text)


_held: list[tuple[Job, str | None, Bench]] = []
"""On a worker: the last bench made, and by what."""


def _bench_of(job: Job) -> Bench:
    device = assigned_device()
    if not _held or _held[0][:2] != (job, device):
        _held.clear()
        gc.collect()
        places = {path: unpack(parcel) for path, parcel in job.parcels}
        _held.append((job, device, job.recipe.make(places, device)))
    return _held[0][2]


def _facts(job: Job, *, on_step: Callable[[int], None]) -> tuple[SweepFacts, int]:  # noqa: ARG001
    bench = _bench_of(job)
    weights = sum(p.numel() * p.element_size() for p in bench.model.model.parameters())
    return facts_of(bench, job.engine), weights


def _measure(
    job: Job,
    keys: Sequence[RunKey],
    size: int | None,
    expected: RunSettings,
    *,
    on_step: Callable[[int], None],
) -> tuple[list[RunRecord], list[str]]:
    bench, notes = _bench_of(job), _Notes(on_step)
    _refuse_others(bench.run_settings(job.engine), expected)
    part = keys[: policies_in_pass(bench, job.engine, size)]
    records = measure_what_fits(bench, part, engine_of(job.engine), notes)
    return records, notes.texts


def _on_bench(
    job: Job,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    on_step: Callable[[int], None],  # noqa: ARG001
) -> tuple[Any, list[str]]:
    notes = _Notes()
    return function(_bench_of(job), *arguments, notes), notes.texts


def _refuse_others(found: RunSettings, expected: RunSettings) -> None:
    """All workers measure the same thing, or else their records would not belong together."""
    import platform

    for name, value in expected:
        if getattr(found, name) != value:
            raise LayerpickError(
                f"The worker on {platform.node()} would measure with {name} = "
                f"{getattr(found, name)!r}, not {value!r} as the first one: give the nodes the "
                f"same files and versions, or say --dtype"
            )
