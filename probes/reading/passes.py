"""What passes through the decoder layers: the residual stream at each layer's input and output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerpick.probes.base import ProbeInput
from layerpick.training.batches.padded import Batch, collate
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.errors import LayerpickError
from layerpick.training.models.head import logits_at
from layerpick.training.models.layers import DecoderLayers

Observer = Callable[[int, Tensor, Tensor], Tensor | None]
"""Told layer, input and output, each (rows, tokens, width); may return another output."""


@contextmanager
def observing(layers: DecoderLayers, observe: Observer) -> Iterator[None]:
    """While open, `observe` sees every pass through every layer."""

    def hook(layer: int):  # type: ignore[no-untyped-def]
        def take(_: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
            hidden = output if isinstance(output, Tensor) else output[0]
            given = args[0] if args else kwargs["hidden_states"]
            replaced = observe(layer, given, hidden)
            if replaced is None or isinstance(output, Tensor):
                return replaced
            return (replaced, *output[1:])

        return take

    handles = [
        module.register_forward_hook(hook(layer), with_kwargs=True)
        for layer, module in enumerate(layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def attention_as(model: Any, implementation: str) -> Iterator[None]:
    """While open, the model computes attention this way; some families cannot switch and stay."""
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def requiring_gradients(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While open, the modules' parameters require gradients; none are left behind."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


def collated(probe_input: ProbeInput, trajectories: Sequence[Trajectory]) -> Batch:
    """Trajectories as one batch on the model's device."""
    return collate(trajectories, probe_input.model.tokenizer.pad_token_id, probe_input.model.device)


def read(probe_input: ProbeInput, batch: Batch, columns: int) -> Tensor:
    """One forward pass; logits of the last `columns` columns, (rows, columns, V)."""
    inputs = batch.input_ids
    places = torch.arange(inputs.numel(), device=inputs.device).view_as(inputs)[:, -columns:]
    return read_at(probe_input, batch, places.flatten()).unflatten(0, places.shape)


def read_at(probe_input: ProbeInput, batch: Batch, places: Tensor) -> Tensor:
    """One forward pass; logits (N, V) at places (N,), int64: row × columns + column."""
    return logits_at(
        probe_input.model.model,
        places,
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )


def written_columns(batch: Batch) -> Tensor:
    """(rows, P + C), bool: the model wrote this token."""
    context = batch.input_ids.shape[1] - batch.columns
    return torch.nn.functional.pad(batch.written, (context, 0))


def groups_with_signal(probe_input: ProbeInput) -> list[int]:
    """Groups in which some advantage differs from 0, in order."""
    return [
        index
        for index, group in enumerate(probe_input.rollouts.advantages(probe_input.algorithm))
        if any(np.any(turns != 0) for turns in group)
    ]


def best_and_worst(probe_input: ProbeInput, prompts: int) -> list[tuple[Trajectory, Trajectory]]:
    """Of up to `prompts` prompts that carry signal, the completions that earn most and least.

    Raises LayerpickError when no prompt carries signal.
    """
    groups = [
        probe_input.rollouts.groups[index] for index in groups_with_signal(probe_input)[:prompts]
    ]
    if not groups:
        raise LayerpickError("No prompt has completions that earn differently.")
    return [
        (max(group, key=lambda t: t.reward), min(group, key=lambda t: t.reward)) for group in groups
    ]
