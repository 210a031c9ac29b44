"""What a person can choose about a training run beyond RL itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Option

RACE = "race"
"""`--layer race`: train several layers side by side, keep the one that wins."""


@dataclass(frozen=True)
class StrategyChoice:
    """What trains."""

    panel: ClassVar[str] = "Strategy"

    layer: str = "auto"
    """auto (the best of a suggestion), race (train several side by side, keep the best), a number,
    several as 3,4, top:3 (the best three, together), middle:5 (the five in the middle, no
    prediction), or all (every parameter of the model, embeddings and head too: full-parameter
    RL)."""
    boost: str | None = None
    """Train everything, and these layers (top:3, 10,11 or middle:5) at a multiple of the rate."""
    boost_factor: float = 10.0
    """With --boost: that multiple."""
    by_sweep: Annotated[Path | None, Option(file_okay=False)] = None
    """Take auto and top:K from the measured sweep in this folder in place of a suggestion."""


@dataclass(frozen=True)
class PaceChoice:
    """What every training run can choose."""

    panel: ClassVar[str] = "Training"

    learning_rate: Annotated[float | None, Option(min=1e-12, max=10)] = None
    """AdamW's rate; if left out, the one advised with --layer auto or in a race, else the model's
    own, or one by its size."""
    checkpoint_every: Annotated[int, Option(min=1)] = 10
    """Steps between checkpoints."""


@dataclass(frozen=True)
class TrainingChoice(PaceChoice):
    """What trains, and how: rate, memory, checkpoints, and what is handed through to TRL."""

    engine: str = "trl"
    """trl (TRL's GRPOTrainer), or own: the engine of sweeps, with the same losses and files; faster
    on small machines, without what TRL alone can do."""
    micro_batch: Annotated[int | None, Option(min=1)] = None
    """Completions of one backward pass; as many as 8192 tokens hold if left out. Halved when memory
    runs out."""
    gradient_checkpointing: bool = False
    """Less memory, more time; only from the trained layer upwards."""
    vllm: Annotated[str | None, Option(rich_help_panel="TRL")] = None
    """server or colocate: TRL generates with vLLM (single-turn tasks; host 127.0.0.1 unless
    --trl vllm_server_host=… says otherwise)."""
    report_to: Annotated[tuple[str, ...], Option(rich_help_panel="TRL")] = ()
    """trackio, wandb or tensorboard; may be given several times."""
    trl: Annotated[tuple[str, ...], Option(rich_help_panel="TRL")] = ()
    """key=value: any other field of TRL's GRPOConfig; may be given several times."""
