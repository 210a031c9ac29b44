"""Many single-layer policies of one frozen model, stacked on the batch axis.

Every policy differs from the model in one layer, so one pass of the model serves the rows of all
of them. Several policies may train the same layer, at rates of their own. Rows are ordered by
policy, policies by layer. In layer k the rows of each policy of layer k go through its own copy of
that layer:

* to act, the model's layer runs on all rows and the results of these policies' rows are replaced;
  each copy keeps the key-value cache of its own rows;
* to learn, the rows are split: those of policies below, which are in the graph; those of each
  policy of this layer, which join it here; and those of policies above, which need no graph yet.

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
from layerpick.training.episodes.decoding import Decoder
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import LoadedModel


class SingleLayerPolicies(Policies):
    """One policy for each layer named; a layer named twice has two."""

    def __init__(self, model: LoadedModel, layers: Sequence[int]):
        self.model = model
        self.layers = tuple(sorted(layers))
        """Of each policy, its layer."""
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
    def acting(
        self, owners: Sequence[int], cache: Any, own_caches: Sequence[Any]
    ) -> Iterator[None]:
        """Layers run on all rows; each policy's own rows are replaced by its copy's result.

        The n-th policy of a layer reads and writes the n-th of its own caches.
        """
        with self._replaced(_Acting(owners, cache, own_caches)):
            yield

    def of_layer(self, layer: int) -> range:
        """The policies of a layer, if any; it starts at the first policy of this layer or above."""
        first, end = np.searchsorted(self.layers, [layer, layer + 1])
        return range(int(first), int(end))

    @contextmanager
    def _replaced(self, rows: _Rows) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, module in enumerate(self.model.layers):
                own = self.of_layer(layer)
                copies = self.copies[own.start : own.stop]
                forward = rows.forward(module.forward, own.start, copies)
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

    def forward(self, base: Any, first: int, copies: Sequence[TrainedCopy]) -> Any:
        """What takes the place of a layer's `forward`.

        `copies` are those of the layer's policies, the first of which is number `first`; where it
        has none, `first` is the first policy above it.
        """
        raise NotImplementedError


class _Acting(_Rows):
    """No graph is needed, and rows must find their cache."""

    def __init__(self, owners: Sequence[int], cache: Any, own_caches: Sequence[Any]):
        super().__init__(owners)
        self._cache = cache
        self._own_caches = own_caches

    def forward(self, base: Any, first: int, copies: Sequence[TrainedCopy]) -> Any:
        rows = [self.of(first + number) for number in range(len(copies))]
        own = [
            (start, end, copies[number], {id(self._cache): self._own_caches[number]})
            for number, (start, end) in enumerate(rows)
            if start < end
        ]
        if not own:
            return base

        def layer(*args: Any, **kwargs: Any) -> Any:
            given = [
                take_rows((args, kwargs), self.count, start, end, caches)
                for start, end, _, caches in own
            ]
            output = base(*args, **kwargs)
            hidden = _hidden(output)
            for (start, end, copy, _), (own_args, own_kwargs) in zip(own, given, strict=True):
                hidden[start:end] = _hidden(copy(*own_args, **own_kwargs))
            return output

        return layer


class _Learning(_Rows):
    """A graph is built for rows from their policy's own layer on."""

    def forward(self, base: Any, first: int, copies: Sequence[TrainedCopy]) -> Any:
        own = [self.of(first + number) for number in range(len(copies))]
        start = self.of(first)[0]
        end = own[-1][1] if own else start
        spans = [(0, start), *own, (end, self.count)]
        sizes = [last - begin for begin, last in spans]

        def layer(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            # One split, not several slices: its gradient is one concatenation.
            hidden = hidden_states.split(sizes)
            parts = []
            for module, part, (begin, last) in zip(
                (base, *copies, base), hidden, spans, strict=True
            ):
                if begin == last:
                    continue
                given = take_rows((args, kwargs), self.count, begin, last)
                with torch.set_grad_enabled(torch.is_grad_enabled() and begin < end):
                    parts.append(module(part, *given[0], **given[1]))
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
        from layerpick.training.episodes.cache import growing_cache

        model = policies.model
        super().__init__(model.model, model.tokenizer.pad_token_id, len(owners))
        self._policies = policies
        self._owners = np.asarray(owners)
        most = max(len(policies.of_layer(layer)) for layer in policies.layers)
        self._own_caches = [growing_cache() for _ in range(most)]

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        kept = np.asarray(rows)
        for cached, start, end in self._own_rows():
            own = kept[(kept >= start) & (kept < end)] - start
            index = torch.from_numpy(own).to(self._device)
            cached.batch_select_indices(index)
        self._owners = self._owners[kept]

    def _rearrange(self, order: Tensor) -> None:
        super()._rearrange(order)
        for cached, start, end in self._own_rows():
            cached.take_slots(order[start:end])

    def _own_rows(self) -> Iterator[tuple[Any, int, int]]:
        """The cached layer, first row and end of every policy that has rows."""
        for policy, layer in enumerate(self._policies.layers):
            start, end = _Rows(self._owners).of(policy)
            if start < end:
                number = policy - self._policies.of_layer(layer).start
                yield self._own_caches[number].layers[layer], start, end

    def _forward(self, tokens: Tensor, mask: Tensor, positions: Tensor, places: Tensor) -> Tensor:
        with self._policies.acting(self._owners.tolist(), self._cache, self._own_caches):
            return super()._forward(tokens, mask, positions, places)


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
    allowed = 0.1 if model.dtype == torch.float32 else 0.3  # bfloat16 rounds logits of 20 to 0.1
    owners = sorted(row % len(policies) for row in range(4))
    words = min(100, model.model.get_input_embeddings().weight.shape[0])
    tokens = torch.randint(words, (4, 5), generator=generator)
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
            if not off < allowed * (alone[rows] - base[rows]).abs().max():
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
