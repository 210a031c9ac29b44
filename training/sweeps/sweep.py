"""The measured sweep: base score, full runs, and one run per layer, over seeds.

Nothing that a store holds is measured again, so a sweep that was killed goes on where it stopped,
and several sweeps may fill one store side by side. The unit is a pass: what a kill loses is the
pass it hits.

With own rates every policy, full and single-layer, is trained at every learning rate of the grid;
which of them counts is decided when scores are read. With a shared rate, as in arXiv 2607.01232, it
is chosen on the full run of the first seed, by its mean training reward over the last quarter of
the steps, and reused for everything else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from layerpick.training.episodes.trajectory import MANY_CUT
from layerpick.training.errors import LayerpickError
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.sweeps.passes import (
    LocalPasses,
    Measure,
    Passes,
    Reporter,
    SweepFacts,
    facts_of,
    policies_in_pass,
)
from layerpick.training.sweeps.records import RunKey, RunRecord, RunSettings

POLL_SECONDS = 2.0
"""How often a sweep looks whether another has finished a run that it waits for."""


class RunStore(Protocol):
    """Where records are kept; `calibration.store` keeps them in a folder."""

    def read(self, key: RunKey, settings: RunSettings) -> RunRecord | None:
        """The record of a run; raises LayerpickError if it was made with other settings."""

    def claim(self, keys: Sequence[RunKey]) -> AbstractContextManager[list[RunKey]]:
        """Those of the runs that nobody else is measuring; they are ours while open."""

    def write(self, records: Sequence[RunRecord]) -> None:
        """Keep the records of one pass: all of them, whenever the process is killed, or none."""


@dataclass(frozen=True)
class SweepPlan:
    """Which runs a sweep is made of."""

    layers: tuple[int, ...]
    seeds: int = 1
    policies_per_pass: int | None = None
    """None: as many as are expected to fit."""
    engine: str = "multiplexed"


def run_sweep(
    bench: Bench, plan: SweepPlan, store: RunStore, measure: Measure, reporter: Reporter
) -> list[RunRecord]:
    """Measure in this process whatever the store lacks; returns all records of the plan.

    Raises LayerpickError as `complete_sweep` and `facts_of` do.
    """
    size = policies_in_pass(bench, plan.engine, plan.policies_per_pass)
    passes = LocalPasses(bench, size, measure, reporter)
    return complete_sweep(facts_of(bench, plan.engine), plan, store, passes, reporter)


def complete_sweep(
    facts: SweepFacts, plan: SweepPlan, store: RunStore, passes: Passes, reporter: Reporter
) -> list[RunRecord]:
    """Have whatever the store lacks measured; returns all records of the plan.

    Full runs are passes of their own; the layers of one seed, at all rates, share passes.

    Raises LayerpickError when no learning rate of the grid can be shared.
    """
    sweep = _Sweep(facts.settings, store, passes, reporter)
    seeds, rates = range(plan.seeds), facts.learning_rates
    base = [[RunKey(kind="base", seed=seed)] for seed in seeds]
    if facts.settings.rates == "own":
        return sweep.complete([*base, *_full(seeds, rates), *_of_layers(plan.layers, seeds, rates)])
    first = sweep.complete([*base, *_full(seeds[:1], rates)])
    rates = (choose_rate([record for record in first if record.run.kind == "full"]),)
    reporter.note(f"Learning rate {rates[0]:g}, chosen on the full run.")
    return first + sweep.complete(
        [*_full(seeds[1:], rates), *_of_layers(plan.layers, seeds, rates)]
    )


def _full(seeds: Sequence[int], rates: Sequence[float]) -> list[list[RunKey]]:
    return [
        [RunKey(kind="full", seed=seed, learning_rate=rate)] for seed in seeds for rate in rates
    ]


def _of_layers(
    layers: Sequence[int], seeds: Sequence[int], rates: Sequence[float]
) -> list[list[RunKey]]:
    return [
        [
            RunKey(kind="layer", seed=seed, learning_rate=rate, layer=layer)
            for layer in layers
            for rate in rates
        ]
        for seed in seeds
    ]


def choose_rate(trials: Sequence[RunRecord]) -> float:
    """The learning rate whose run earned most in the last quarter of its steps."""
    usable = [trial for trial in trials if trial.status == "done"]
    if not usable:
        reasons = "; ".join(f"{t.run.learning_rate:g}: {t.reason}" for t in trials)
        raise LayerpickError(f"The full run failed at every learning rate ({reasons}).")

    def late_reward(trial: RunRecord) -> float:
        return float(np.mean(trial.curve[-max(1, len(trial.curve) // 4) :] or [0.0]))

    best = max(usable, key=late_reward)
    assert best.run.learning_rate is not None
    return best.run.learning_rate


class _Sweep:
    def __init__(self, settings: RunSettings, store: RunStore, passes: Passes, reporter: Reporter):
        self._settings = settings
        self._store = store
        self._passes = passes
        self._reporter = reporter

    def complete(self, families: Sequence[Sequence[RunKey]]) -> list[RunRecord]:
        """Records of all runs; those of one family may share a pass."""
        waiting = False
        while missing := [part for family in families if (part := self._missing(family))]:
            portions = [missing] if self._passes.side_by_side else [[part] for part in missing]
            if any(self._attempt(portion) for portion in portions):
                continue
            if not waiting:
                self._reporter.note("Waiting for runs that another sweep is measuring.")
            waiting = True
            time.sleep(POLL_SECONDS)
        found = [self._store.read(key, self._settings) for family in families for key in family]
        return [record for record in found if record is not None]

    def _missing(self, keys: Sequence[RunKey]) -> list[RunKey]:
        return [key for key in keys if self._store.read(key, self._settings) is None]

    def _attempt(self, families: Sequence[Sequence[RunKey]]) -> bool:
        """Measure what can be claimed of some families; whether there was anything."""
        with self._store.claim([key for family in families for key in family]) as claimed:
            # Another sweep may have finished in between.
            ours = [self._missing([key for key in keys if key in claimed]) for keys in families]
            for records in self._passes.measure([keys for keys in ours if keys]):
                self._store.write(records)
                self._warn(records)
        return any(ours)

    def _warn(self, records: Sequence[RunRecord]) -> None:
        """Say at once when the model itself is often cut off: everything after is too."""
        for record in records:
            if record.run.kind == "base" and (record.cut or 0.0) > MANY_CUT:
                self._reporter.note(
                    f"Warning: {record.cut:.0%} of the model's completions are cut off at "
                    f"{self._settings.max_new_tokens:,} tokens: give a larger --max-new-tokens."
                )
