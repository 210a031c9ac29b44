"""Policies read at the precision of float32 and nearly the speed of a lower one.

A step of one layer moves log-probabilities by a thousandth to a tenth. bfloat16 rounds hidden
states by four thousandths of their size, two passes differently, which drowns the difference. So
the model's own pass is remembered: of every product with frozen weights W what went in, x₀, and
what came out, y₀. A policy's pass computes

    y = y₀ + W (x − x₀) + (W' − W) x

where W' is what the policy trains, if this is one of its products. Only the products are in the
model's own number format, and only of differences: what they round is in proportion to what the
policy has changed. Sums, norms, attention and probabilities are float32. y₀ is rounded as well, but
once for all policies and for the model that they are compared with.

Limits: parameters that are not those of linear modules or of the input embedding (norms, but also
the experts of mixtures) are held in float32 too. What a policy's weights change below the format's
resolution of x counts in proportion, so weights themselves are float32.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from layerpick.probes.trials.prefixes import Text
from layerpick.probes.trials.reader import Known, Reader, in_float32
from layerpick.probes.trials.vocabulary import (
    BaseHead,
    Written,
    is_whole,
    log_probs_from,
    remember_head,
)
from layerpick.training.engine.policies import TrainedCopy
from layerpick.training.engine.stacked import replaced_forward
from layerpick.training.models.head import log_probs_of, logits_at
from layerpick.training.models.loading import LoadedModel

HEAD = "head"
Remembered = dict[str, tuple[Tensor, ...]]
"""By product: x₀ (…, in) and y₀ (…, out), in the model's own format."""


class DifferenceReader(Reader):
    """Reads with a float32 twin of the model that shares its large weights."""

    def __init__(self, model: LoadedModel, temperature: float):
        """Raises RuntimeError or TypeError where a family will not mix number formats."""
        network = model.model
        embedding = network.get_input_embeddings()
        large = [m.weight for m in network.modules() if _is_product(m) or m is embedding]
        twin = in_float32(model, {id(weight): weight for weight in large})
        twin.model.get_input_embeddings().register_forward_hook(_to_float32)
        super().__init__(twin, temperature)
        self._original = model
        self._products = _Products()
        names = {module: name for name, module in twin.model.named_modules()}
        for module, name in names.items():
            if _is_product(module):
                self._products.take(name, module, module)
        self._head = twin.model.get_output_embeddings()
        self._head_is_whole = self._try()

    def policy(self, layer: int) -> TrainedCopy:
        """A float32 copy of a layer whose products are differences too."""

        policy = TrainedCopy(copy.deepcopy(self._original.layers[layer]).float())
        for name, module in policy.module.named_modules():
            if _is_product(module):
                frozen = self._model.layers[layer].get_submodule(name)
                self._products.take(self._model.layers.prefix(layer) + name, frozen, module)
        return policy

    def _remember(self, text: Text) -> Known:
        with self._products.remembering() as more:
            if not self._head_is_whole:
                batch = text.batch
                logits = self._logits(text)
                base = log_probs_of(logits, batch.targets, self._temperature, batch.place)
            else:
                hidden, weight = self._hidden(text), self._head.weight
                bias = None if self._head.bias is None else self._head.bias.float()
                head = remember_head(hidden, weight, bias, self._written(text))
                base = log_probs_from(hidden, head, weight, self._written(text))
                more[HEAD] = head.tensors
        return Known(text, base, (), False, more)

    def _lasting(self, known: Known) -> Known:
        return replace(known, more={HEAD: known.more[HEAD]} if HEAD in known.more else {})

    def _again(self, known: Known, lowest: int) -> Known:
        read = self._hidden if self._head_is_whole else self._logits
        with self._starting_at(known, lowest), self._products.remembering() as more:
            read(known.text)
        return replace(known, more={**more, **known.more})

    def _read(self, known: Known) -> Tensor:
        with self._products.against(known.more):
            if not self._head_is_whole:
                batch = known.text.batch
                return log_probs_of(
                    self._logits(known.text), batch.targets, self._temperature, batch.place
                )
            base = BaseHead(*known.more[HEAD])
            return log_probs_from(
                self._hidden(known.text), base, self._head.weight, self._written(known.text)
            )

    def _logits(self, text: Text) -> Tensor:
        batch = text.batch
        return logits_at(
            self._model.model,
            batch.places,
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )

    def _hidden(self, text: Text) -> Tensor:
        """(M, width), float32: what the head reads."""
        read: list[Tensor] = []

        def stop(hidden: Tensor) -> Tensor:
            read.append(hidden.squeeze(0))
            return hidden[..., :1]

        with replaced_forward(self._head, stop):
            self._logits(text)
        return read[0]

    def _written(self, text: Text) -> Written:
        return Written(text.batch.targets, text.batch.place, self._temperature)

    @torch.no_grad()
    def _try(self) -> bool:
        """One pass over two tokens; whether the model hands out its head's product as it is."""
        made: list[Tensor] = []
        hook = self._head.register_forward_hook(lambda _, __, output: made.append(output))
        try:
            with self._products.remembering():
                two = torch.ones(1, 2, dtype=torch.long, device=self._model.device)
                logits = self._model.model(input_ids=two, use_cache=False).logits
        finally:
            hook.remove()
        self._products.leave_out_repeated()
        return _is_product(self._head) and is_whole(logits, made)


class _Products:
    """The linear modules of a model and its policies, and what is remembered of one pass."""

    def __init__(self) -> None:
        self._remembered: Remembered = {}
        self._remembers = False
        self._calls: Counter[str] = Counter()
        self._left_out: set[str] = set()
        self._last: tuple[Any, ...] = (None, None, None)

    @contextmanager
    def remembering(self) -> Iterator[Remembered]:
        """While open, a pass is remembered in what is handed out."""
        self._remembers, self._remembered = True, {}
        self._calls.clear()
        try:
            yield self._remembered
        finally:
            self._remembers, self._remembered, self._last = False, {}, (None, None, None)

    @contextmanager
    def against(self, remembered: Any) -> Iterator[None]:
        """While open, passes compute differences from what is remembered."""
        self._remembered = remembered
        try:
            yield
        finally:
            self._remembered, self._last = {}, (None, None, None)

    def leave_out_repeated(self) -> None:
        """Products that one pass computes several times have no one memory: plainly, then."""
        self._left_out = {name for name, calls in self._calls.items() if calls > 1}

    def take(self, name: str, frozen: nn.Module, module: nn.Module) -> None:
        """Let a module compute differences; `module` is `frozen`, or a policy's copy of it."""
        module.forward = self._forward(name, frozen, module)  # type: ignore[method-assign]

    def _forward(self, name: str, frozen: Any, module: Any) -> Callable[[Tensor], Tensor]:
        def forward(given: Tensor) -> Tensor:
            weight = _oriented(frozen)
            if self._remembers:
                self._calls[name] += 1
                rounded = self._rounded(given, weight.dtype)
                made = nn.functional.linear(rounded, weight)
                self._remembered[name] = (rounded, made)
            before = self._remembered.get(name)
            if before is None or name in self._left_out or before[0].shape != given.shape:
                made = nn.functional.linear(given, _oriented(module).float())
            else:
                trained = None if module is frozen else _oriented(module)
                moved = self._moved(given, before[0])
                made = _Difference.apply(given, weight, trained, moved, before[1])
            return made if module.bias is None else made + module.bias

        return forward

    def _rounded(self, given: Tensor, dtype: torch.dtype) -> Tensor:
        """One tensor for all modules that read the same."""
        if self._last[0] is not given:
            self._last = (given, given.detach().to(dtype), None)
        return self._last[1]

    def _moved(self, given: Tensor, before: Tensor) -> Tensor:
        """given − before, likewise."""
        if self._last[0] is not given or self._last[1] is not before or self._last[2] is None:
            moved = before.float()
            moved = torch.sub(given.detach(), moved, out=moved).to(before.dtype)
            self._last = (given, before, moved)
        return self._last[2]


class _Difference(torch.autograd.Function):
    """x (…, in) and trained (out, in), float32; weight, moved and y₀ in the model's own format."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, trained: Tensor | None, moved: Tensor, before: Tensor
    ) -> Tensor:
        # Operands of one format: mixed ones take several times as long.
        made = before.float().add_(nn.functional.linear(moved, weight).float())
        low = x.to(weight.dtype) if trained is not None or ctx.needs_input_grad[1] else None
        if trained is not None and low is not None:
            step = (trained - weight).to(weight.dtype)
            made.add_(nn.functional.linear(low, step).float())
        ctx.save_for_backward(weight, trained, low)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, trained, low = ctx.saved_tensors
        gradient = gradient.to(weight.dtype)
        needs_x, needs_weight, needs_trained = ctx.needs_input_grad[:3]
        own = weight if trained is None else trained.to(weight.dtype)
        for_x = (gradient @ own).float() if needs_x else None
        for_weights = None
        if needs_weight or needs_trained:
            for_weights = gradient.flatten(0, -2).T @ low.flatten(0, -2)
        return (
            for_x,
            for_weights if needs_weight else None,
            for_weights.float() if needs_trained and for_weights is not None else None,
            None,
            None,
        )


def _is_product(module: nn.Module) -> bool:
    return type(module) in (nn.Linear, Conv1D)


def _oriented(module: Any) -> Tensor:
    """(out, in): GPT-2 keeps its weights the other way round."""
    return module.weight.T if isinstance(module, Conv1D) else module.weight


def _to_float32(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    return output.float()
