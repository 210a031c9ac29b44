"""What a person can choose, group by group: arguments in Python, options on the command line.

Torch-free, so that `--help` answers at once. `TaskSettings` and `RlSettings` belong to the room
that reads them, `training`; the groups of one command alone lie in its folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Argument, Option

from layerpick.training.errors import LayerpickError
from layerpick.training.settings import RlSettings
from layerpick.training.tasks.settings import TaskSettings

__all__ = [
    "TRAINING_SAMPLING",
    "AlgorithmName",
    "HeldOutChoice",
    "Json",
    "LoadingChoice",
    "ModelChoice",
    "RlSettings",
    "RolloutChoice",
    "SamplingChoice",
    "Seed",
    "TaskName",
    "TaskSettings",
    "TrustChoice",
    "rates_of",
]

LARGEST_RATE = 10.0
USUAL_PROMPTS, USUAL_GROUP_SIZE = 64, 8
"""What a suggestion reads, unless told otherwise."""

TaskName = Annotated[str, Option("--task", help="math, code or agentic; see `layerpick tasks`.")]
AlgorithmName = Annotated[
    str | None,
    Option("--algorithm", help="grpo, dr_grpo or gigpo; the task's usual one if left out."),
]
Seed = Annotated[
    int, Option(help="Same seed, same rollouts.", min=0, max=2**32 - 1, rich_help_panel="Sampling")
]
Json = Annotated[bool, Option("--json", help="Print JSON, and nothing else, to stdout.")]


@dataclass(frozen=True, kw_only=True)
class TrustChoice:
    """What loading a model may run."""

    panel: ClassVar[str] = "Model"

    allow_pickle: bool = False
    """Accept pickled weights (.bin); loading them can run code."""
    trust_remote_code: bool = False
    """Run code from the model's repository."""


@dataclass(frozen=True, kw_only=True)
class LoadingChoice(TrustChoice):
    """How a model may be loaded to sample from it."""

    pad_token: str | None = None
    """Pad token, if the tokenizer has none."""


@dataclass(frozen=True)
class ModelChoice(LoadingChoice):
    """Which model, and how it may be loaded."""

    model: Annotated[str | None, Argument(rich_help_panel="Arguments")] = None
    """Hub id, local folder or .gguf file; the built-in model of the task if left out."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dtype: str = "auto"
    """auto (bfloat16 on CUDA and where a CPU multiplies it fast, else float32), or one of float32,
    bfloat16, float16."""
    device: str = "auto"
    """auto (CUDA if there is one), cpu, cuda, cuda:1, …"""


@dataclass(frozen=True)
class SamplingChoice:
    """How completions are sampled; None takes the model's or the task's default."""

    panel: ClassVar[str] = "Sampling"

    max_new_tokens: Annotated[int | None, Option(min=1)] = None
    """Longest turn, in tokens; the model's or the task's own if left out."""
    temperature: Annotated[float | None, Option(max=100)] = None
    """Sampling temperature (1.0 if left out)."""
    batch_size: Annotated[int, Option(min=1)] = 64
    """Episodes decoded at a time."""


TRAINING_SAMPLING = SamplingChoice(batch_size=2048)
"""Of the commands that train: a step's episodes are decoded together."""


@dataclass(frozen=True)
class RolloutChoice:
    """What the probes read: how much is sampled, or which file."""

    panel: ClassVar[str] = "Sampling"

    prompts: Annotated[int | None, Option(min=1, show_default=str(USUAL_PROMPTS))] = None
    """Prompts to sample for."""
    group_size: Annotated[int | None, Option(min=2, show_default=str(USUAL_GROUP_SIZE))] = None
    """Completions for each prompt."""
    reuse: Annotated[Path | None, Option("--rollouts")] = None
    """Reuse rollouts from this file."""
    save: Annotated[Path | None, Option("--save-rollouts")] = None
    """Write the rollouts to this .safetensors file."""
    also: Path | None = None
    """Rollouts of the same model on another task, from --save-rollouts: does that task pull each
    layer the same way?"""

    def __post_init__(self) -> None:
        if self.reuse is not None and self.save is not None:
            raise LayerpickError(
                "--save-rollouts keeps rollouts sampled anew: leave it out with --rollouts."
            )


@dataclass(frozen=True)
class HeldOutChoice:
    """What policies are scored on."""

    panel: ClassVar[str] = "Scoring"

    heldout_prompts: Annotated[int, Option(min=2)] = 256
    """Held-out prompts to score on."""
    heldout_samples: Annotated[int, Option(min=1)] = 4
    """Completions for each of them."""


def rates_of(option: str) -> Callable[[str], tuple[float, ...]]:
    """What reads the learning rates of an option, separated by commas, each of them once.

    It raises LayerpickError for anything else.
    """

    def parse(text: str) -> tuple[float, ...]:
        try:
            rates = tuple(float(rate) for rate in text.split(","))
        except ValueError:
            rates = ()
        if not rates or not all(0 < rate <= LARGEST_RATE for rate in rates):
            raise LayerpickError(
                f"{option} '{text}' is not a list of positive numbers, as 1e-5,3e-5."
            )
        return tuple(dict.fromkeys(rates))

    return parse
