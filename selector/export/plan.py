"""What an export is made from: the chosen layers by the model's own names, and how to train them.

Module names are read off the model itself, built from its config without weights; none is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from layerpick.training.models.choosing import choose_layers
from layerpick.training.models.layers import find_decoder_layers
from layerpick.training.models.loading import read_config
from layerpick.training.models.sources import ModelFolder

NAMES_OF_EXPERTS = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
"""Names that PEFT 0.21 takes for experts in models that have some."""


@dataclass(frozen=True)
class LayerNames:
    """What the chosen decoder layers are called in their model."""

    layers: tuple[int, ...]
    """Ascending."""
    count: int
    """Decoder layers of the model."""
    path: str
    """Module path of the list of layers, e.g. `model.layers`."""
    parameters: tuple[str, ...]
    """All parameters of the model, in its own order."""
    size: int
    """Numbers that they hold."""
    linear: tuple[str, ...]
    """Full names of the chosen layers' linear modules: what LoRA can adapt.

    In a mixture of experts these are attention's: experts are no modules of their own, and PEFT
    takes names such as `gate_proj`, even full ones, for those of all experts of all layers.
    """
    transposed: bool
    """Those modules keep their weights transposed, as GPT-2's do (PEFT: `fan_in_fan_out`)."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of the chosen layers' parameters begin with."""
        return tuple(f"{self.path}.{layer}." for layer in self.layers)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Last parts of the linear modules' names, each once: `q_proj`, `k_proj`, …"""
        return tuple(dict.fromkeys(name.rpartition(".")[2] for name in self.linear))


@dataclass(frozen=True)
class Plan:
    """One export: which layers of which model, and the run that they are meant for."""

    model: str
    """Hub id or folder."""
    revision: str | None
    names: LayerNames
    reason: str
    """A sentence: how the layers were chosen."""
    task: str
    algorithm: str
    learning_rate: float
    steps: int
    prompts: int
    """Prompts of one step."""
    group_size: int
    max_new_tokens: int
    temperature: float
    beta: float = 0.0
    """Weight of the KL divergence from the base model."""
    stop: tuple[str, ...] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[dict[str, Any], ...] = ()
    """Rows to train on: the `prompt` as the model reads it, and all columns of its `row` as JSON.
    None where the target brings no data of its own."""

    @property
    def in_words(self) -> str:
        """`layer 17 of 36`."""
        listed = ", ".join(map(str, self.names.layers))
        return f"layer{'s' if len(self.names.layers) > 1 else ''} {listed} of {self.names.count}"


def layer_names(
    folder: ModelFolder,
    layers: str,
    ranking: Sequence[int] | None = None,
    *,
    trust_remote_code: bool = False,
) -> LayerNames:
    """Read the names off a model that has a structure and no weights.

    `layers` as `choose_layers` takes them. Raises LayerpickError when the model has no such layer.
    """
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    config = read_config(folder, trust_remote_code)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    found = find_decoder_layers(network)
    chosen = choose_layers(layers, len(found), ranking, option="--layer")
    prefixes = tuple(found.prefix(layer) for layer in chosen)
    experts = any(parameter.ndim == 3 for parameter in found[chosen[0]].parameters())
    linear = {
        name: module
        for name, module in network.named_modules()
        if name.startswith(prefixes)
        and isinstance(module, nn.Linear | Conv1D)
        and not (experts and name.rpartition(".")[2] in NAMES_OF_EXPERTS)
    }
    return LayerNames(
        layers=chosen,
        count=len(found),
        path=found.path,
        parameters=tuple(name for name, _ in network.named_parameters()),
        size=sum(parameter.numel() for parameter in network.parameters()),
        linear=tuple(linear),
        transposed=any(isinstance(module, Conv1D) for module in linear.values()),
    )


def header(plan: Plan, made_for: str, *notes: str) -> str:
    """Comment lines that open a file, for any language whose comments begin with `#`."""
    where = f"{plan.model} (revision {plan.revision})" if plan.revision else plan.model
    lines = [
        f"{plan.in_words} of {where}.".replace("layer", "Layer", 1),
        plan.reason,
        f"Made by layerpick {version('layerpick')} for {made_for}.",
        *notes,
    ]
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)  # a name may hold line ends
