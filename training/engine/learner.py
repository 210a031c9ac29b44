"""One policy-gradient update of many policies at once.

The objective is TRL's GRPO objective: the clipped importance ratio with an advantage per turn,
and a penalty for leaving the base policy. Each policy is its own training run: its rows are
averaged by themselves, its gradient is clipped by itself, and a gradient that is not finite stops
that policy alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from layerpick.training.algorithms.base import Algorithm
from layerpick.training.batches.packed import (
    PackedBatch,
    pack,
    packed_log_probs,
)
from layerpick.training.batches.rows import CLASH, RowSharing, chunk_limits, columns
from layerpick.training.engine.attention import fast_backward
from layerpick.training.engine.policies import Policies
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.models.loading import LoadedModel
from layerpick.training.settings import RlSettings

Rates = float | Sequence[float]
"""A learning rate of all policies, or one of each."""


@dataclass(frozen=True)
class Lesson:
    """One trajectory as one policy learns from it."""

    policy: int
    trajectory: Trajectory
    advantages: np.ndarray
    """(turns,), float64."""
    weight: float
    """Of each token: the algorithm's, over the number of trajectories the policy learns from."""
    old_log_probs: np.ndarray | None = None
    """(tokens written,): of the policy that sampled; None where that is the learning one."""

    @property
    def per_token(self) -> np.ndarray:
        """(tokens written,): each token's advantage."""
        return np.repeat(self.advantages, [turn.end - turn.start for turn in self.trajectory.turns])


def lessons_of(
    policy: int,
    groups: Sequence[Sequence[Trajectory]],
    algorithm: Algorithm,
    max_tokens: int,
    old_log_probs: Sequence[np.ndarray] | None = None,
) -> list[Lesson]:
    """Lessons from one policy's rollouts, in order.

    `max_tokens` is the most that a trajectory could have had the model write. `old_log_probs`
    has one array for each trajectory.
    """
    count = sum(len(group) for group in groups)
    advantages = [values for group in groups for values in algorithm.advantages(group)]
    trajectories = [trajectory for group in groups for trajectory in group]
    old = old_log_probs if old_log_probs is not None else [None] * count
    return [
        Lesson(
            policy,
            trajectory,
            values,
            algorithm.token_weight(trajectory.generated, max_tokens) / count,
            before,
        )
        for trajectory, values, before in zip(trajectories, advantages, old, strict=True)
    ]


class Learner:
    """AdamW on what the policies train."""

    def __init__(
        self,
        policies: Policies,
        settings: RlSettings,
        learning_rate: Rates,
        temperature: float,
        base: LoadedModel | None = None,
        chunk_tokens: int = 8192,
    ):
        """`base` is what a KL penalty is measured from; chunks of tokens bound the memory."""
        self._policies = policies
        self._settings = settings
        self._temperature = temperature
        self._base = base
        model = policies.model
        self._limits = chunk_limits(model, chunk_tokens)
        self._pad = model.tokenizer.pad_token_id
        self._sharing = RowSharing(model, self._limits)
        by_rate: dict[float, list[torch.nn.Parameter]] = defaultdict(list)
        for policy, rate in enumerate(np.broadcast_to(learning_rate, len(policies))):
            by_rate[float(rate)] += policies.parameters(policy)
        self.optimizer = torch.optim.AdamW(
            [{"params": trained, "lr": rate} for rate, trained in by_rate.items()],
            weight_decay=0.0,
            fused=True,
        )
        """What checkpoints keep, beside the parameters."""

    def update(self, lessons: Sequence[Lesson]) -> tuple[np.ndarray, list[int]]:
        """One step of every policy that has lessons; lessons are ordered by policy.

        Returns each policy's loss, shape (policies,), and the policies whose gradient was not
        finite, which have not moved.
        """
        losses = self.gradients(lessons)
        present = sorted({lesson.policy for lesson in lessons})
        broken = self._clip(present)
        self.optimizer.step()
        for policy in present:  # the fused step leaves no trace, and casts follow versions
            torch.autograd.graph.increment_version(self._policies.parameters(policy))
        self.optimizer.zero_grad()
        return losses, broken

    def gradients(self, lessons: Sequence[Lesson]) -> np.ndarray:
        """Add the gradient of every policy's loss to its parameters; returns the losses."""
        losses = torch.zeros(len(self._policies), device=self._policies.model.device)
        for chunk in self._chunks([row for row in self._rows(lessons) if self._matters(row)]):
            loss = self._token_losses(chunk)
            loss.sum().backward()
            owners = _per_token(chunk, lambda lesson: np.full(len(lesson.per_token), lesson.policy))
            losses.index_add_(0, owners.to(losses.device), loss.detach())
        return losses.cpu().numpy()

    def log_probs(self, lessons: Sequence[Lesson]) -> Iterator[tuple[Lesson, np.ndarray]]:
        """The policies' log-probabilities of the tokens in their lessons; (tokens written,)."""

        @torch.no_grad()
        def read(chunk: list[list[Lesson]]) -> Tensor:
            with self._policies.stacked([row[0].policy for row in chunk]):
                batch = self._batch(chunk)
                return packed_log_probs(self._policies.model.model, batch, self._temperature)

        return self._read(lessons, read)

    def base_log_probs(self, lessons: Sequence[Lesson]) -> Iterator[tuple[Lesson, np.ndarray]]:
        """The base policy's, of the same tokens in the same order."""
        return self._read(lessons, lambda chunk: self._base_log_probs(self._batch(chunk)))

    def _read(
        self, lessons: Sequence[Lesson], read: Callable[[list[list[Lesson]]], Tensor]
    ) -> Iterator[tuple[Lesson, np.ndarray]]:
        """What `read` makes of each chunk, (tokens,), cut into lessons."""
        for chunk in self._chunks(self._rows(lessons)):
            values = read(chunk)
            ordered = [lesson for row in chunk for lesson in row]
            ends = np.cumsum([lesson.trajectory.generated for lesson in ordered])
            yield from zip(ordered, np.split(values.cpu().numpy(), ends[:-1]), strict=True)

    def _token_losses(self, chunk: Sequence[Sequence[Lesson]]) -> Tensor:
        """(tokens,): each token's share of its policy's loss."""
        batch = self._batch(chunk)
        device = batch.input_ids.device
        with (
            fast_backward(self._policies.model),
            self._policies.stacked([row[0].policy for row in chunk]),
        ):
            log_probs = packed_log_probs(self._policies.model.model, batch, self._temperature)
        advantages = _per_token(chunk, lambda lesson: lesson.per_token).to(device)
        weights = _per_token(chunk, lambda lesson: np.full(len(lesson.per_token), lesson.weight))
        old = log_probs.detach()
        if chunk[0][0].old_log_probs is not None:
            old = _per_token(chunk, lambda lesson: lesson.old_log_probs).to(device)
        loss = clipped_loss(log_probs, old, advantages, self._settings.epsilon)
        if self._settings.beta:
            reference = self._base_log_probs(batch)
            loss = loss + self._settings.beta * kl_estimate(log_probs, old, reference)
        return weights.to(device) * loss

    @torch.no_grad()
    def _base_log_probs(self, batch: PackedBatch) -> Tensor:
        assert self._base is not None, "a KL divergence needs the base policy"
        return packed_log_probs(self._base.model, batch, self._temperature)

    def _batch(self, chunk: Sequence[Sequence[Lesson]]) -> PackedBatch:
        model = self._policies.model
        groups = [[lesson.trajectory for lesson in row] for row in chunk]
        return pack(groups, self._pad, model.device, model.dtype)

    def _rows(self, lessons: Sequence[Lesson]) -> list[list[Lesson]]:
        """Lessons that share a row: of one policy and one prompt."""
        rows = []
        for _, same in groupby(lessons, key=lambda each: (each.policy, each.trajectory.group)):
            samples = list(same)
            size = self._sharing.samples_per_row([each.trajectory for each in samples])
            rows += [samples[start : start + size] for start in range(0, len(samples), size)]
        return rows

    def _matters(self, row: Sequence[Lesson]) -> bool:
        """Without a penalty, samples whose advantages are all zero have no gradient."""
        return bool(self._settings.beta) or any(np.any(lesson.advantages) for lesson in row)

    def _chunks(self, rows: Sequence[list[Lesson]]) -> Iterator[list[list[Lesson]]]:
        """Consecutive rows that fill a padded batch within the limits, or single ones.

        See `CLASH` for what else does not stand in a batch together.
        """
        chunk: list[list[Lesson]] = []
        longest = predicted = 0
        masks: frozenset[str] = frozenset()
        for row in rows:
            samples = [lesson.trajectory for lesson in row]
            length, masks = columns(samples), self._sharing.mix([samples], masks)
            written = sum(lesson.trajectory.generated for lesson in row)
            longest, predicted = max(longest, length), predicted + written
            tokens = longest * (len(chunk) + 1)
            full = tokens > self._limits.tokens or predicted > self._limits.predicted
            if chunk and (full or masks == CLASH):
                yield chunk
                chunk, longest, predicted = [], length, written
                masks = self._sharing.mix([samples])
            chunk.append(row)
        if chunk:
            yield chunk

    def _clip(self, present: Sequence[int]) -> list[int]:
        """Scale every policy's gradient to the largest allowed; drop those that are not finite."""
        gradients = {
            policy: [p.grad for p in self._policies.parameters(policy) if p.grad is not None]
            for policy in present
        }
        gradients = {policy: found for policy, found in gradients.items() if found}
        if not gradients:
            return []
        norms = torch.stack([torch.nn.utils.get_total_norm(g) for g in gradients.values()]).tolist()
        broken = []
        for policy, norm in zip(gradients, norms, strict=True):
            if not np.isfinite(norm):
                broken.append(policy)
                for parameter in self._policies.parameters(policy):
                    parameter.grad = None
            elif 0 < self._settings.max_grad_norm < norm:
                scale = self._settings.max_grad_norm / (norm + 1e-6)
                torch._foreach_mul_(gradients[policy], scale)
        return broken


def clipped_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """−min(r A, clip(r, 1 ± ε) A), all (tokens,): PPO (arXiv 1707.06347), eq. 7."""
    ratio = torch.exp(log_probs - old)
    return -torch.min(ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages)


def kl_estimate(log_probs: Tensor, old: Tensor, reference: Tensor) -> Tensor:
    """r (q/p − log(q/p) − 1), q the reference, all (tokens,).

    DeepSeekMath (arXiv 2402.03300), eq. 4, weighted by the importance ratio r as in DeepSeek-V3.2
    (arXiv 2512.02556), so that its gradient is that of the divergence.
    """
    away = reference - log_probs
    return torch.exp(log_probs - old) * (torch.exp(away) - away - 1)


def _per_token(
    chunk: Sequence[Sequence[Lesson]], values: Callable[[Lesson], np.ndarray | None]
) -> Tensor:
    """(tokens,): float32, or integers as they are."""
    arrays = [values(lesson) for row in chunk for lesson in row]
    joined = np.concatenate([array for array in arrays if array is not None])
    return torch.from_numpy(joined if joined.dtype.kind == "i" else joined.astype(np.float32))
