"""The trainers that an export can be for, by name: one file each."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from layerpick.training.errors import LayerpickError

if TYPE_CHECKING:  # it brings PyTorch, which `--help` does without
    from layerpick.selector.export.plan import Plan

TARGETS = {
    "trl": "TRL: a script that trains the layer itself, and one for LoRA in it",
    "axolotl": "Axolotl: the layer itself, and LoRA in it",
    "ms-swift": "ms-swift 4: the layer itself",
    "peft": "PEFT: LoRA in the layer, for any trainer that takes a LoraConfig",
    "unsloth": "Unsloth: LoRA in the layer",
    "llama-factory": "LLaMA-Factory: supervised training of the layer itself, by BAdam",
    "verl": "verl: LoRA in the layer",
    "openrlhf": "OpenRLHF: LoRA in the layer",
    "nemo-rl": "NeMo RL: LoRA in the layer",
    "skyrl": "SkyRL: LoRA in the layer",
    "prime-rl": "prime-rl: LoRA in the layer",
}


class Target(Protocol):
    """A module of `targets`."""

    WANTS_ROWS: bool
    """Whether it needs the plan's rows."""

    def files(self, plan: Plan) -> Mapping[str, str]:
        """Files by their names. Raises LayerpickError where the trainer cannot do it."""


def find_target(name: str) -> Target:
    """The target of that name. Raises LayerpickError for an unknown one."""
    if name not in TARGETS:
        raise LayerpickError(f"--to '{name}' is unknown: use {', '.join(TARGETS)}.")
    module = f"layerpick.selector.export.targets.{name.replace('-', '_')}"
    return import_module(module)  # type: ignore[return-value]
