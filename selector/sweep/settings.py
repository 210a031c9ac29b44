"""What a person can choose about a sweep beyond RL itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

from typer import Option

from layerpick.selector.settings import USUAL_PROMPTS, rates_of
from layerpick.training.errors import LayerpickError


def _policies(text: str) -> int | None:
    if text == "auto":
        return None
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise LayerpickError(f"--policies-per-pass '{text}' is neither auto nor a number above 0.")
    return int(text)


@dataclass(frozen=True)
class SweepChoice:
    """Which runs a sweep is made of, and which probes are measured beside them."""

    panel: ClassVar[str] = "Sweep"

    layers: str = "all"
    """all, 0,4,8 (numbers), middle:5 or every:3."""
    seeds: Annotated[int, Option(min=1)] = 1
    """Repetitions of everything."""
    engine: str = "multiplexed"
    """multiplexed (all layers in one pass) or trl (one TRL run after another)."""
    learning_rates: Annotated[
        tuple[float, ...] | None, Option("--lr-grid", parser=rates_of("--lr-grid"), metavar="<str>")
    ] = None
    """Learning rates, separated by commas: every policy is trained at each, and has the one that is
    best for it. By the model's size if left out."""
    shared_lr: bool = False
    """One learning rate for all, the best of the full run, as in arXiv 2607.01232."""
    policies_per_pass: Annotated[
        int | None, Option(parser=_policies, metavar="<str>", show_default="auto")
    ] = None
    """auto (as many as fit), or a number."""
    probes: str = "all"
    """Probes whose features are kept beside the runs, for `layerpick calibrate`: as in
    `layerpick suggest`, or none."""
    probe_prompts: Annotated[int, Option(min=2)] = USUAL_PROMPTS
    """Prompts that they read."""
    name: str | None = None
    """Name of this sweep's folder below the model's, as math-svamp, where several data sets are
    swept; TASK-ALGORITHM if left out."""


@dataclass(frozen=True)
class ClusterChoice:
    """Where the passes of a sweep run."""

    panel: ClassVar[str] = "Cluster"

    on: str | None = None
    """ray (this machine, or the cluster in RAY_ADDRESS), ray://HOST:PORT or another address of a
    Ray cluster, where each pass is one task; in this process if left out."""
    gpus_per_pass: Annotated[float | None, Option(min=0)] = None
    """GPUs of one pass, or a share of one; 1 where the cluster has any."""
    memory_per_pass: Annotated[float | None, Option(min=0)] = None
    """Gigabytes of main memory of one pass; by the model's size if left out."""


HERE = ClusterChoice()
"""In this process."""
