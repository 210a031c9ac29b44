"""Run a probe and measure what it cost."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch

from layerpick.probes.base import Probe, ProbeCost, ProbeInput, ProbeResult


def run_probe(
    probe: Probe, shared: ProbeInput, on_done: Callable[[int], None] = lambda _: None
) -> ProbeResult:
    """Measure a probe's features with seconds, tokens and peak memory."""
    device = shared.model.device
    _reset_peak(device)
    start = time.perf_counter()
    features, tokens = probe.measure(shared, on_done)
    seconds = time.perf_counter() - start
    return ProbeResult(features, ProbeCost(seconds, tokens, peak_memory(device)))


def peak_memory(device: torch.device) -> int:
    """Most bytes held since the last reset: allocated on CUDA, resident elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    reset = Path("/proc/self/clear_refs")
    if reset.is_file():
        try:
            reset.write_text("5")  # Linux: set the peak resident size to the current one
        except PermissionError:
            return  # some containers forbid it; the peak then covers the whole process
