"""Run a probe and measure what it cost; a probe that fails says why."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from layerpick.probes.base import Measurement, Probe, ProbeCost, ProbeInput, ProbeResult
from layerpick.training.errors import LayerpickError
from layerpick.training.memory import return_freed_memory

logger = logging.getLogger(__name__)


def run_probe(
    probe: Probe, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
) -> ProbeResult:
    """Measure a probe's features with seconds, tokens and peak memory.

    Whatever goes wrong in a probe is reported in the result's `failure`: models differ in what
    they allow, and one measurement less is no reason to give none.
    """
    device = probe_input.model.device
    return_freed_memory()
    _reset_peak(device)
    start = time.perf_counter()
    try:
        found = probe.measure(probe_input, on_done)
        failure = _left_out(found)
    except Exception as error:
        logger.debug("the probe %s failed", probe.name, exc_info=True)
        found = Measurement({}, tokens=0)
        failure = _sentence(error)
    seconds = time.perf_counter() - start
    asked = list(probe_input.trained_layers)
    finite = {k: v for k, v in found.features.items() if np.isfinite(v[asked]).all()}
    if len(finite) < len(found.features):
        lost = ", ".join(sorted(set(found.features) - set(finite)))
        failure = "; ".join(filter(None, [failure, f"{lost}: not finite"]))
    cost = ProbeCost(seconds, found.tokens, peak_memory(device), found.sampled_tokens)
    return ProbeResult(finite, cost, failure)


def peak_memory(device: torch.device) -> int:
    """Most bytes held since the last reset: allocated on CUDA, resident elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _sentence(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, LayerpickError) else f"{type(error).__name__}: {first}"


def _left_out(found: Measurement) -> str | None:
    reasons: dict[str, list[str]] = {}
    for name, reason in found.left_out.items():
        reasons.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items()) or None


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    reset = Path("/proc/self/clear_refs")
    if reset.is_file():
        try:
            reset.write_text("5")  # Linux: set the peak resident size to the current one
        except PermissionError:
            return  # some containers forbid it; the peak then covers the whole process
