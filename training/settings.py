"""How a policy is trained, whatever trains it: the one place for RL's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from typer import Option


@dataclass(frozen=True)
class RlSettings:
    """How long, on how much and by which loss a policy is trained; the same in every engine."""

    panel: ClassVar[str] = "Training"

    steps: Annotated[int, Option(min=1)] = 60
    """RL steps."""
    prompts: Annotated[int, Option(min=1)] = 16
    """Prompts of one step."""
    group_size: Annotated[int, Option(min=2)] = 8
    """Completions for each prompt."""
    epsilon: Annotated[float, Option("--epsilon", "--clip", min=0)] = 0.2
    """The importance ratio counts within 1 ± this."""
    beta: Annotated[float, Option("--beta", "--kl", min=0)] = 0.0
    """Weight of the KL divergence from the base model."""
    max_grad_norm: Annotated[float, Option(min=0)] = 1.0
    """Largest gradient of a policy, as a 2-norm; 0 for any."""
