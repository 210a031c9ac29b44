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

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from layerpick.training.engine.stacked import check_multiplexing
from layerpick.training.episodes.trajectory import MANY_CUT
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import LoadedModel
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.sweeps.records import Rates, RunKey, RunRecord, RunSettings

POLL_SECONDS = 2.0
"""How often a sweep looks whether another has finished a run that it waits for."""
RATES_BY_SIZE = ((10_000_000, (2e-4, 5e-4, 1e-3)), (50_000_000, (5e-5, 1e-4, 3e-4)))
RATES_OF_LARGE_MODELS = (1e-5, 3e-5)
HIGHER_RATE = 1e-4
"""Added where each policy has its own rate: one layer stands more than a whole large model."""

Measure = Callable[[Bench, Sequence[RunKey], Callable[[int], None]], list[RunRecord]]


class RunStore(Protocol):
    """Where records are kept; `calibration.store` keeps them in a folder."""

    def read(self, key: RunKey, settings: RunSettings) -> RunRecord | None:
        """The record of a run; raises LayerpickError if it was made with other settings."""

    def claim(self, keys: Sequence[RunKey]) -> AbstractContextManager[list[RunKey]]:
        """Those of the runs that nobody else is measuring; they are ours while open."""

    def write(self, records: Sequence[RunRecord]) -> None:
        """Keep the records of one pass: all of them, whenever the process is killed, or none."""


class Reporter(Protocol):
    """How a sweep tells a person where it is."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Begin a stage of `total` steps; call the result with the number of steps done."""

    def note(self, text: str) -> None:
        """Say one sentence."""


@dataclass(frozen=True)
class SweepPlan:
    """Which runs a sweep is made of."""

    layers: tuple[int, ...]
    seeds: int = 1
    policies_per_pass: int | None = None
    """None: as many as are expected to fit."""
    engine: str = "multiplexed"


def choose_layers(spec: str, count: int) -> tuple[int, ...]:
    """Layers by a specification: `all`, `0,4,8`, `middle:5` or `every:3`.

    Raises LayerpickError for anything else, and for layers that a model of `count` has not.
    """
    if spec == "all":
        return tuple(range(count))
    if match := re.fullmatch(r"middle:(\d+)", spec):
        wanted = min(int(match[1]), count)
        start = (count - wanted) // 2
        return tuple(range(start, start + wanted))
    if match := re.fullmatch(r"every:([1-9]\d*)", spec):
        return tuple(range(0, count, int(match[1])))
    if not re.fullmatch(r"\d+(,\d+)*", spec):
        raise LayerpickError(
            f"--layers '{spec}' is none of: all, 0,4,8 (numbers), middle:5, every:3."
        )
    chosen = tuple(sorted({int(number) for number in spec.split(",")}))
    if chosen[-1] >= count:
        raise LayerpickError(f"Layer {chosen[-1]} does not exist: layers are 0 to {count - 1}.")
    return chosen


def default_rates(model: LoadedModel, rates: Rates = "shared") -> tuple[float, ...]:
    """Learning rates to choose from, by the model's size: larger models want smaller ones."""
    size = sum(parameter.numel() for parameter in model.model.parameters())
    large = RATES_OF_LARGE_MODELS + ((HIGHER_RATE,) if rates == "own" else ())
    return next((grid for limit, grid in RATES_BY_SIZE if size < limit), large)


def run_sweep(
    bench: Bench, plan: SweepPlan, store: RunStore, measure: Measure, reporter: Reporter
) -> list[RunRecord]:
    """Measure whatever the store lacks; returns all records of the plan.

    Full runs are passes of their own; the layers of one seed, at all rates, share passes.

    Raises LayerpickError when no learning rate of the grid can be shared, when the model cannot be
    multiplexed, and for float16 models, whose gradients vanish.
    """
    if bench.model.dtype == torch.float16:
        raise LayerpickError("float16 is for inference: train with --dtype bfloat16 or float32.")
    if plan.engine == "multiplexed":
        check_multiplexing(bench.model)
    sweep = _Sweep(bench, plan, store, measure, reporter)
    seeds, rates = range(plan.seeds), bench.learning_rates
    base = sweep.complete([[RunKey(kind="base", seed=seed)] for seed in seeds])
    cut = max(record.cut or 0.0 for record in base)
    if cut > MANY_CUT:
        reporter.note(
            f"Warning: {cut:.0%} of the model's completions are cut off at "
            f"{bench.sampling.max_new_tokens:,} tokens: give a larger --max-new-tokens."
        )
    full = sweep.complete(
        [
            [RunKey(kind="full", seed=seed, learning_rate=rate)]
            for seed in (seeds if bench.rates == "own" else seeds[:1])
            for rate in rates
        ]
    )
    if bench.rates == "shared":
        rates = (choose_rate(full),)
        reporter.note(f"Learning rate {rates[0]:g}, chosen on the full run.")
        full += sweep.complete(
            [[RunKey(kind="full", seed=seed, learning_rate=rates[0])] for seed in seeds[1:]]
        )
    layers = sweep.complete(
        [
            [
                RunKey(kind="layer", seed=seed, learning_rate=rate, layer=layer)
                for layer in plan.layers
                for rate in rates
            ]
            for seed in seeds
        ]
    )
    return [*base, *full, *layers]


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
    def __init__(
        self,
        bench: Bench,
        plan: SweepPlan,
        store: RunStore,
        measure: Measure,
        reporter: Reporter,
    ):
        self._bench = bench
        self._store = store
        self._measure = measure
        self._reporter = reporter
        self._settings = bench.run_settings(plan.engine)
        # TRL's runs share nothing, so each is kept as soon as it is done.
        alone = plan.engine == "trl"
        self._size = 1 if alone else plan.policies_per_pass or policies_that_fit(bench)

    def complete(self, families: Sequence[Sequence[RunKey]]) -> list[RunRecord]:
        """Records of all runs; those of one family may share a pass."""
        waiting = False
        while missing := [part for family in families if (part := self._missing(family))]:
            if any(self._attempt(family) for family in missing):
                continue
            if not waiting:
                self._reporter.note("Waiting for runs that another sweep is measuring.")
            waiting = True
            time.sleep(POLL_SECONDS)
        found = [self._store.read(key, self._settings) for family in families for key in family]
        return [record for record in found if record is not None]

    def _missing(self, keys: Sequence[RunKey]) -> list[RunKey]:
        return [key for key in keys if self._store.read(key, self._settings) is None]

    def _attempt(self, family: Sequence[RunKey]) -> bool:
        """Measure what can be claimed of a family; whether there was anything."""
        with self._store.claim(family) as claimed:
            ours = self._missing(claimed)  # another sweep may have finished in between
            for group in self._groups(ours):
                self._store.write(group)
        return bool(ours)

    def _groups(self, keys: list[RunKey]) -> Iterator[list[RunRecord]]:
        """Records of one pass after another; halves passes that do not fit."""
        while keys:
            part = keys[: self._size]
            names = part[0].name if len(part) == 1 else f"{part[0].name} to {part[-1].name}"
            done = self._reporter.stage(names, self._bench.settings.steps)
            try:
                records = self._measure(self._bench, part, done)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                self._halve(len(part), error)
                continue
            for record in records:
                if record.reason:
                    self._reporter.note(f"{record.run.name} failed: {record.reason}.")
            yield records
            keys = keys[len(part) :]

    def _halve(self, size: int, error: RuntimeError) -> None:
        if size == 1:
            raise LayerpickError(
                "Even a single run does not fit into memory: give fewer --prompts, a smaller "
                "--batch-size or a shorter --max-new-tokens."
            ) from error
        self._size = size // 2
        self._reporter.note(f"Out of memory with {size} policies; going on with {self._size}.")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def policies_that_fit(bench: Bench) -> int:
    """How many single-layer policies are expected to fit into half of the free memory."""
    model = bench.model
    config = model.model.config.get_text_config(decoder=True)
    trained = 16 * max(model.layers.parameter_count(k) for k in range(len(model.layers)))
    rows = bench.settings.prompts * bench.settings.group_size
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = model.model.get_input_embeddings().weight.element_size()
    tokens = 2 * bench.sampling.max_new_tokens * bench.task.max_turns
    cache = rows * tokens * len(model.layers) * 2 * heads * width * size
    return max(1, int(_free_memory(model.device) / 2 / (trained + cache)))


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)
