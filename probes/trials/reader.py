"""Texts as policies read them that differ from the model in one layer.

Below that layer a policy sees the model's own hidden states. The model reads a text once; what it
fed to each layer is remembered, and a policy's pass starts at its layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from layerpick.probes.base import ProbeInput
from layerpick.probes.reading.passes import observing, requiring_gradients
from layerpick.probes.trials.prefixes import Text
from layerpick.training.batches.packed import packed_log_probs
from layerpick.training.engine.policies import TrainedCopy
from layerpick.training.engine.stacked import replaced_forward
from layerpick.training.models.layers import find_decoder_layers
from layerpick.training.models.loading import LoadedModel

REMEMBERED_BYTES = 5e8
"""What may be kept of texts that are not being read."""


@dataclass(frozen=True, eq=False)
class Known:
    """A text and what the model made of it."""

    text: Text
    base: Tensor
    """(N,), float32: the model's log-probabilities of the written tokens."""
    inputs: tuple[Tensor, ...]
    """By layer, (rows, tokens, width): what the model feeds it."""
    in_tuple: bool
    """Whether layers return their hidden state in a tuple."""
    more: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    """What else a kind of reader remembers."""

    @property
    def nbytes(self) -> int:
        """Memory that is held."""
        more = [tensor for tensors in self.more.values() for tensor in tensors]
        # Modules that read the same tensor remember it together.
        return sum({id(tensor): tensor.nbytes for tensor in (*self.inputs, *more)}.values())


class Reader:
    """Reads with the model as it is, in its own number format."""

    def __init__(self, model: LoadedModel, temperature: float):
        self._model = model
        self._temperature = temperature
        self._known: dict[Text, Known] = {}

    def policy(self, layer: int) -> TrainedCopy:
        """A copy of a layer, to be trained, which `log_probs` puts in its place."""
        return TrainedCopy(self._model.layers[layer])

    def groups(self, layers: Sequence[int], most: float) -> list[list[int]]:
        """Those layers, in groups that have at most so many parameters together; one at least."""
        groups: list[list[int]] = []
        held = float("inf")
        for layer in layers:
            size = self._model.layers.parameter_count(layer)
            if held + size > most:
                groups.append([])
                held = 0.0
            groups[-1].append(layer)
            held += size
        return groups

    @torch.no_grad()
    def base(self, text: Text, lowest: int = 0) -> Known:
        """What the model makes of a text, for policies of `lowest` and layers above it.

        The inputs of all layers are kept while memory allows, and read on from the next time.
        """
        known = self._known.get(text)
        if known is None:
            known = self._read_base(text)
            held = sum(kept.nbytes for kept in self._known.values())
            kept = self._lasting(known)
            if held + kept.nbytes <= REMEMBERED_BYTES:
                self._known[text] = kept
            return known
        return self._again(known, lowest)

    def log_probs(self, known: Known, layer: int, policy: TrainedCopy) -> Tensor:
        """(N,), float32: a policy's log-probabilities of the written tokens."""
        with self._starting_at(known, layer, policy):
            return self._read(known)

    def gradients(self, texts: Sequence[Text]) -> list[dict[str, Tensor]]:
        """By layer, by parameter: the gradient of the loss at the base policy, in its format."""
        layers = self._model.layers
        with requiring_gradients(layers):
            for text in texts:
                known = self.base(text)
                # The importance ratio is 1, and nothing is clipped.
                loss = -(text.weights * text.advantages) * self._read(known)
                loss.sum().backward()
            return [
                {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
                for module in layers
            ]

    def _read_base(self, text: Text) -> Known:
        inputs: list[Tensor] = []
        tuples: list[bool] = []

        def keep(_: int, given: Tensor, made: Tensor) -> None:  # noqa: ARG001
            inputs.append(given.detach())

        def look(_: Any, __: Any, output: Any) -> None:
            tuples.append(not isinstance(output, Tensor))

        handle = self._model.layers[0].register_forward_hook(look)
        try:
            with observing(self._model.layers, keep):
                found = self._remember(text)
        finally:
            handle.remove()
        return replace(found, inputs=tuple(inputs), in_tuple=tuples[0])

    def _remember(self, text: Text) -> Known:
        """A pass of the model; `inputs` are filled in later."""
        return Known(text, self._read(Known(text, torch.empty(0), (), False)), (), False)

    def _lasting(self, known: Known) -> Known:
        """What of it is kept for the next time, where memory allows."""
        return replace(known, more={})

    def _again(self, known: Known, lowest: int) -> Known:  # noqa: ARG002
        """What was kept of a text, with all that policies of `lowest` and above need."""
        return known

    def _read(self, known: Known) -> Tensor:
        """(N,), float32: log-probabilities by the model as it stands."""
        return packed_log_probs(self._model.model, known.text.batch, self._temperature)

    @contextmanager
    def _starting_at(self, known: Known, layer: int, policy: Any = None) -> Iterator[None]:
        """While open, a pass begins at `layer`, with `policy` in its place if there is one."""

        def skip(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            return (hidden_states,) if known.in_tuple else hidden_states

        module = policy or self._model.layers[layer].forward

        def begin(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001
            return module(known.inputs[layer], *args, **kwargs)

        with ExitStack() as stack:
            for index in range(layer):
                stack.enter_context(replaced_forward(self._model.layers[index], skip))
            stack.enter_context(replaced_forward(self._model.layers[layer], begin))
            yield


def make_reader(probe_input: ProbeInput) -> Reader:
    """The reader that suits the model's number format: trials need the precision of float32."""
    from layerpick.probes.trials.differences import DifferenceReader

    model, temperature = probe_input.model, probe_input.rollouts.origin.temperature or 1.0
    if model.dtype == torch.float32:
        return Reader(model, temperature)
    try:
        return DifferenceReader(model, temperature)
    except (RuntimeError, TypeError, ValueError, AttributeError):
        # A family that will not mix number formats: at full cost.
        return Reader(in_float32(model), temperature)


def in_float32(model: LoadedModel, shared: Mapping[int, Any] | None = None) -> LoadedModel:
    """A copy with float32 parameters, but for those to be shared (by identity)."""
    network = copy.deepcopy(model.model, dict(shared or {}))
    for parameter in network.parameters():
        if id(parameter) not in (shared or {}):
            parameter.data = parameter.data.float()
    return replace(model, model=network, layers=find_decoder_layers(network))
