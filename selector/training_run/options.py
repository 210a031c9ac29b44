"""Options of the commands that train, declared once, and what they amount to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

TRAINING, TRL, SCORING = "Training", "TRL", "Scoring"

Steps = Annotated[int, typer.Option(help="RL steps.", min=1, rich_help_panel=TRAINING)]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="AdamW's rate; the model's own, or one by its size, if left out.",
        min=0,
        rich_help_panel=TRAINING,
        show_default=False,
    ),
]
Kl = Annotated[
    float,
    typer.Option(
        "--kl",
        "--beta",
        help="Weight of the KL divergence from the base model.",
        min=0,
        rich_help_panel=TRAINING,
    ),
]
Clip = Annotated[
    float,
    typer.Option(help="The importance ratio counts within 1 ± this.", rich_help_panel=TRAINING),
]
MaxGradNorm = Annotated[
    float, typer.Option(help="Largest gradient, as a 2-norm.", min=0, rich_help_panel=TRAINING)
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        help="Completions of one backward pass; as many as 8192 tokens hold if left out. Halved "
        "when memory runs out.",
        min=1,
        rich_help_panel=TRAINING,
        show_default=False,
    ),
]
GradientCheckpointing = Annotated[
    bool,
    typer.Option(
        "--gradient-checkpointing",
        help="Less memory, more time; only from the trained layer upwards.",
        rich_help_panel=TRAINING,
    ),
]
CheckpointEvery = Annotated[
    int,
    typer.Option(help="Steps between checkpoints.", min=1, rich_help_panel=TRAINING),
]
Vllm = Annotated[
    str | None,
    typer.Option(
        help="server or colocate: TRL generates with vLLM (single-turn tasks; host 127.0.0.1 "
        "unless --trl vllm_server_host=… says otherwise).",
        rich_help_panel=TRL,
        show_default=False,
    ),
]
ReportTo = Annotated[
    list[str] | None,
    typer.Option(
        help="trackio, wandb or tensorboard; may be given several times.", rich_help_panel=TRL
    ),
]
Trl = Annotated[
    list[str] | None,
    typer.Option(
        "--trl",
        help="key=value: any other field of TRL's GRPOConfig; may be given several times.",
        rich_help_panel=TRL,
    ),
]
HeldoutPrompts = Annotated[
    int, typer.Option(help="Held-out prompts to score on.", min=2, rich_help_panel=SCORING)
]
HeldoutSamples = Annotated[
    int, typer.Option(help="Completions for each of them.", min=1, rich_help_panel=SCORING)
]
SuggestionFile = Annotated[
    Path | None,
    typer.Option(
        help="A suggestion.json to take the layer from; made first if left out.",
        dir_okay=False,
        rich_help_panel=TRAINING,
        show_default=False,
    ),
]


@dataclass(frozen=True)
class TrainingChoice:
    """What a person chose about a training run."""

    algorithm: str | None = None
    steps: int = 60
    learning_rate: float | None = None
    kl: float = 0.0
    clip: float = 0.2
    max_grad_norm: float = 1.0
    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    checkpoint_every: int = 10
    vllm: str | None = None
    report_to: Sequence[str] = ()
    trl: Sequence[str] = ()
    """`key=value` texts."""
    heldout_prompts: int = 256
    heldout_samples: int = 4
    seed: int = 0
