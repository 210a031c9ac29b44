"""Many single-layer policies of one frozen model, stacked on the batch axis.

Every policy differs from the model in one layer, so one pass of the model serves the rows of all
of them. Rows are ordered by policy, policies by layer. In layer k the rows of the policy of layer
k go through its own copy of that layer:

* to act, the model's layer runs on all rows and the result of the policy's rows is replaced; the
  copy keeps the key-value cache of its own rows;
* to learn, the rows are split into three: those of policies below, which are in the graph; the
  policy's own, which join it here; and those of policies above, which need no graph yet.

No two policies share a trained parameter, so one backward pass gives each its own gradient.

Limits: a row's result in a layer must depend on that row alone, and on no other layer's cache.
`check_multiplexing` finds out by comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerpick.training.engine.policies import FIRST_LAYER_STREAM, Policies, TrainedCopy
from layerpick.training.episodes.decoding import Decoder, rearrange_slots
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import LoadedModel


class SingleLayerPolicies(Policies):
    """One policy for each of some layers."""

    def __init__(self, model: LoadedModel, layers: Sequence[int]):
        self.model = model
        self.layers = tuple(sorted(set(layers)))
        self.streams = tuple(FIRST_LAYER_STREAM + layer for layer in self.layers)
        self.copies = tuple(TrainedCopy(model.layers[layer]) for layer in self.layers)

    @contextmanager
    def stacked(self, owners: Sequence[int]) -> Iterator[None]:
        """Layers split the rows, so that each policy's own join the graph at its layer."""
        with self._replaced(_Learning(owners)):
            yield

    def decoder(self, owners: Sequence[int]) -> Decoder:
        """A decoder in which every policy's rows go through its own layer."""
        return _StackedDecoder(self, owners)

    @contextmanager
    def acting(self, owners: Sequence[int], cache: Any, own_cache: Any) -> Iterator[None]:
        """Layers run on all rows; each policy's own rows are replaced by its copy's result."""
        with self._replaced(_Acting(owners, cache, own_cache)):
            yield

    @contextmanager
    def _replaced(self, rows: _Rows) -> Iterator[None]:
        by_layer = dict(zip(self.layers, self.copies, strict=True))
        with ExitStack() as stack:
            for layer, module in enumerate(self.model.layers):
                policy = int(np.searchsorted(self.layers, layer))
                forward = rows.forward(module.forward, policy, by_layer.get(layer))
                stack.enter_context(replaced_forward(module, forward))
            yield


@contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """While open, a module computes something else; its hooks stay."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward  # the class's own shows again
        if own is not None:
            module.forward = own


class _Rows:
    """Which rows of a batch belong to which policy."""

    def __init__(self, owners: Sequence[int] | np.ndarray):
        self.owners = np.asarray(owners)
        self.count = len(self.owners)

    def of(self, policy: int) -> tuple[int, int]:
        """First row of a policy, and the row after its last."""
        start, end = np.searchsorted(self.owners, [policy, policy + 1])
        return int(start), int(end)

    def forward(self, base: Any, policy: int, own: TrainedCopy | None) -> Any:
        """What takes the place of a layer's `forward`.

        `policy` is that of this layer, if `own` is its copy; else the first one above it.
        """
        raise NotImplementedError


class _Acting(_Rows):
    """No graph is needed, and rows must find their cache."""

    def __init__(self, owners: Sequence[int], cache: Any, own_cache: Any):
        super().__init__(owners)
        self._cache = cache
        self._own_cache = own_cache

    def forward(self, base: Any, policy: int, own: TrainedCopy | None) -> Any:
        start, end = self.of(policy)
        if own is None or start == end:
            return base

        def layer(*args: Any, **kwargs: Any) -> Any:
            given = self._part((args, kwargs), start, end)
            output = base(*args, **kwargs)
            hidden, replaced = _hidden(output), _hidden(own(*given[0], **given[1]))
            hidden[start:end] = replaced
            return output

        return layer

    def _part(self, value: Any, start: int, end: int) -> Any:
        return take_rows(value, self.count, start, end, {id(self._cache): self._own_cache})


class _Learning(_Rows):
    """A graph is built for rows from their policy's own layer on."""

    def forward(self, base: Any, policy: int, own: TrainedCopy | None) -> Any:
        start, end = self.of(policy)
        end = end if own is not None else start

        def layer(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            # One split, not three slices: its gradient is one concatenation.
            hidden = hidden_states.split([start, end - start, self.count - end])

            def run(module: Any, part: int, first: int, last: int) -> Any:
                given = take_rows((args, kwargs), self.count, first, last)
                return module(hidden[part], *given[0], **given[1])

            parts = []
            if start > 0:
                parts.append(run(base, 0, 0, start))
            if end > start:
                parts.append(run(own, 1, start, end))
            if end < self.count:
                with torch.no_grad():
                    parts.append(run(base, 2, end, self.count))
            return parts[0] if len(parts) == 1 else _joined(parts)

        return layer


def take_rows(
    value: Any, count: int, start: int, end: int, swaps: dict[int, Any] | None = None
) -> Any:
    """Rows start:end of every tensor in `value` that has `count` rows; all else as it is.

    Reaches into tuples, lists and dictionaries. One-dimensional tensors count positions, not
    rows. `swaps` gives, by identity, what to put in place of other objects.
    """
    if swaps and id(value) in swaps:
        return swaps[id(value)]
    if isinstance(value, Tensor):
        whole = start == 0 and end == count
        return value[start:end] if value.ndim > 1 and len(value) == count and not whole else value
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return type(value)(take_rows(item, count, start, end, swaps) for item in value)
    if isinstance(value, dict):
        return {key: take_rows(item, count, start, end, swaps) for key, item in value.items()}
    return value


def _hidden(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _joined(outputs: Sequence[Any]) -> Any:
    """Outputs of a layer for consecutive rows as one; what follows the hidden state is dropped."""
    hidden = torch.cat([_hidden(output) for output in outputs])
    return hidden if isinstance(outputs[0], Tensor) else (hidden,)


class _StackedDecoder(Decoder):
    """A decoder whose rows belong to several policies."""

    def __init__(self, policies: SingleLayerPolicies, owners: Sequence[int]):
        from transformers import DynamicCache

        model = policies.model
        super().__init__(model.model, model.tokenizer.pad_token_id, len(owners))
        self._policies = policies
        self._owners = np.asarray(owners)
        self._own_cache = DynamicCache()

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        kept = np.asarray(rows)
        for layer, start, end in self._own_rows():
            own = kept[(kept >= start) & (kept < end)] - start
            index = torch.from_numpy(own).to(self._device)
            self._own_cache.layers[layer].batch_select_indices(index)
        self._owners = self._owners[kept]

    def _rearrange(self, order: Tensor) -> None:
        super()._rearrange(order)
        for layer, start, end in self._own_rows():
            rearrange_slots(self._own_cache.layers[layer], order[start:end])

    def _own_rows(self) -> Iterator[tuple[int, int, int]]:
        """Layer, first row and end of every policy that has rows."""
        for policy, layer in enumerate(self._policies.layers):
            start, end = _Rows(self._owners).of(policy)
            if start < end:
                yield layer, start, end

    def _forward(self, tokens: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        with self._policies.acting(self._owners.tolist(), self._cache, self._own_cache):
            return super()._forward(tokens, mask, last)


def check_multiplexing(model: LoadedModel) -> None:
    """Compare two stacked policies, acting and learning, with the same policies alone.

    Raises LayerpickError when this model's layers cannot be multiplexed.
    """
    policies = SingleLayerPolicies(model, [0, len(model.layers) - 1])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for copied in policies.copies:
            for weight in copied.trained.values():
                noise = torch.randn(weight.shape, generator=generator).to(weight)
                weight.add_(0.1 * weight.abs().mean() * noise)
    owners = sorted(row % len(policies) for row in range(4))
    tokens = torch.randint(100, (4, 5), generator=generator)
    try:
        stacked = torch.stack(
            [_acts(policies.decoder(owners), tokens), _learns(policies, owners, tokens)]
        )
        for policy, layer in enumerate(policies.layers):
            base = _acts(_plain(model), tokens)
            with replaced_forward(model.layers[layer], policies.copies[policy]):
                alone = _acts(_plain(model), tokens)
            rows = [row for row, owner in enumerate(owners) if owner == policy]
            off = (stacked[:, rows] - alone[rows]).abs().max()
            if not off < 0.1 * (alone[rows] - base[rows]).abs().max():
                raise ValueError("rows influence one another")
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise LayerpickError(
            f"The layers of {type(model.model).__name__} cannot be trained in one pass "
            f"({str(error).splitlines()[0]}); `layerpick sweep --engine trl` trains one by one."
        ) from error


@torch.no_grad()
def _learns(policies: SingleLayerPolicies, owners: Sequence[int], tokens: Tensor) -> Tensor:
    with policies.stacked(owners):
        logits = policies.model.model(tokens.to(policies.model.device), use_cache=False).logits
    return logits[:, -1].float()


def _acts(decoder: Decoder, tokens: Tensor) -> Tensor:
    """Logits after the last token, which is read by itself, from the cache."""
    decoder.extend(tokens[:, :-1].tolist())
    decoder.keep(range(len(tokens)))
    return decoder.extend(tokens[:, -1:].tolist()).float()


def _plain(model: LoadedModel) -> Decoder:
    return Decoder(model.model, model.tokenizer.pad_token_id, 4)
