"""One policy that trains some decoder layers of a frozen model together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from layerpick.training.engine.policies import FIRST_LAYER_STREAM, Policies, TrainedCopy
from layerpick.training.engine.stacked import replaced_forward
from layerpick.training.episodes.decoding import Decoder
from layerpick.training.models.loading import LoadedModel


class JointPolicy(Policies):
    """All rows go through this policy's copies of its layers; the model itself stays as it is."""

    def __init__(self, model: LoadedModel, layers: Sequence[int]):
        self.model = model
        self.layers = tuple(sorted(set(layers)))
        self.streams = (FIRST_LAYER_STREAM + self.layers[0],)
        self.copies = tuple(TrainedCopy(model.layers[layer]) for layer in self.layers)

    def __len__(self) -> int:
        return 1

    def parameters(self, policy: int) -> list[nn.Parameter]:  # noqa: ARG002
        """What is trained, layer by layer."""
        return [parameter for copied in self.copies for parameter in copied.trained.values()]

    @contextmanager
    def stacked(self, owners: Sequence[int]) -> Iterator[None]:  # noqa: ARG002
        """The copies stand in the place of their layers."""
        with ExitStack() as stack:
            for layer, copied in zip(self.layers, self.copies, strict=True):
                stack.enter_context(replaced_forward(self.model.layers[layer], copied))
            yield

    def decoder(self, owners: Sequence[int]) -> Decoder:
        """A decoder of the model with the copies in it."""
        return _JointDecoder(self, len(owners))


class _JointDecoder(Decoder):
    def __init__(self, policy: JointPolicy, rows: int):
        super().__init__(policy.model.model, policy.model.tokenizer.pad_token_id, rows)
        self._policy = policy

    def _forward(self, tokens: Tensor, mask: Tensor, positions: Tensor, places: Tensor) -> Tensor:
        with self._policy.stacked(()):
            return super()._forward(tokens, mask, positions, places)
