"""Where the passes of a sweep are measured: here, one after another.

A pass is several runs of one seed that share their sampling. `layerpick.training.sweeps.on_ray`
measures passes on a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from layerpick.training.engine.stacked import check_multiplexing
from layerpick.training.errors import LayerpickError
from layerpick.training.progress import Reporter
from layerpick.training.sweeps.multiplexed import Bench, run_pass
from layerpick.training.sweeps.records import RunKey, RunRecord, RunSettings

ENGINES = ("multiplexed", "trl")
Measure = Callable[[Bench, Sequence[RunKey], Reporter], list[RunRecord]]


@dataclass(frozen=True)
class SweepFacts:
    """What a sweep must know of its bench, wherever that is."""

    settings: RunSettings
    learning_rates: tuple[float, ...]


class Passes(Protocol):
    """A place where passes are measured."""

    side_by_side: ClassVar[bool]
    """Whether passes of different families are measured at the same time."""

    def measure(self, families: Sequence[Sequence[RunKey]]) -> Iterator[list[RunRecord]]:
        """Records of one pass after another, as they end; runs of one family may share a pass."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of the bench, these arguments and `note` returns, where the bench is."""


def facts_of(bench: Bench, engine: str) -> SweepFacts:
    """What a sweep must know of a bench.

    Raises LayerpickError when the model cannot be multiplexed, and for float16 models, whose
    gradients vanish.
    """
    if bench.model.dtype == torch.float16:
        raise LayerpickError("float16 is for inference: train with --dtype bfloat16 or float32.")
    if engine == "multiplexed":
        check_multiplexing(bench.model)
    return SweepFacts(bench.run_settings(engine), bench.learning_rates)


class LocalPasses:
    """Passes of a bench in this process; those that do not fit into memory are halved."""

    side_by_side: ClassVar[bool] = False

    def __init__(self, bench: Bench, size: int, measure: Measure, reporter: Reporter):
        """`size` is the number of policies that a pass has at most."""
        self._bench = bench
        self._size = size
        self._measure = measure
        self._reporter = reporter

    def measure(self, families: Sequence[Sequence[RunKey]]) -> Iterator[list[RunRecord]]:
        """Records of one pass after another, in order."""
        for keys in families:
            while keys:
                part = keys[: self._size]
                records = measure_what_fits(self._bench, part, self._measure, self._reporter)
                if len(records) < len(part):
                    self._size = len(records)
                note_failures(records, self._reporter)
                yield records
                keys = keys[len(records) :]

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it here."""
        return function(self._bench, *arguments, self._reporter)


def measure_what_fits(
    bench: Bench, keys: Sequence[RunKey], measure: Measure, reporter: Reporter
) -> list[RunRecord]:
    """Measure a pass, or as much of its beginning as fits into memory.

    Raises LayerpickError when not even one run does.
    """
    while True:
        try:
            return measure(bench, keys, reporter)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if len(keys) == 1:
                raise LayerpickError(
                    "Even a single run does not fit into memory: give fewer --prompts, a smaller "
                    "--batch-size or a shorter --max-new-tokens."
                ) from error
        reporter.note(f"Out of memory with {len(keys)} policies; going on with {len(keys) // 2}.")
        keys = keys[: len(keys) // 2]
        clear_device_cache(garbage_collection=True)


def note_failures(records: Sequence[RunRecord], reporter: Reporter) -> None:
    """Say which runs came to nothing."""
    for record in records:
        if record.reason:
            reporter.note(f"{record.run.name} failed: {record.reason}.")


def engine_of(name: str) -> Measure:
    """What measures a pass. Raises LayerpickError for an unknown engine."""
    if name == "multiplexed":
        return run_pass
    if name != "trl":
        raise LayerpickError(f"The engine '{name}' is unknown: use {', '.join(ENGINES)}.")
    from layerpick.training.sweeps.one_by_one import run_trl_pass

    return run_trl_pass


def policies_in_pass(bench: Bench, engine: str, chosen: int | None) -> int:
    """Policies that one pass has at most: those chosen, or as many as are expected to fit."""
    # TRL's runs share nothing, so each is kept as soon as it is done.
    return 1 if engine == "trl" else chosen or policies_that_fit(bench)


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
