"""TRL's trainer of exactly what has been chosen, and its checkpoints.

TRL computes advantages, losses and updates. Beside the rollouts (`layerpick.training.trl.rollouts`)
these differ here:

* a step's rows are split into micro-batches here, so that one which does not fit into memory can
  be halved and the step taken again from its beginning;
* with a KL penalty, the reference policy is the model itself with its original weights put back;
* vLLM is sent what is trained, and nothing else: the rest it has loaded itself, or, a server, has
  been sent before the first step;
* a checkpoint holds what is trained and its optimizer, and nothing is sent to anybody.

Limits: with several processes nothing is halved in the update when memory runs out, because all of
them would have to know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig
from trl.trainer.utils import split_tensor_dict

from layerpick.training.engine.loop import step_seed
from layerpick.training.models.sharding import whole
from layerpick.training.runs.checkpoint import (
    Checkpoint,
    load_optimizer,
    load_trained,
    save_checkpoint,
)
from layerpick.training.runs.rules import NotFiniteError, not_finite
from layerpick.training.trl.reference import ReferencePolicy
from layerpick.training.trl.rollouts import MICRO_BATCH, Assignment, TaskTrainer


class LayerTrainer(TaskTrainer):
    """GRPO and Dr. GRPO; what is trained has been chosen before, by `freeze`."""

    def __init__(
        self,
        work: Assignment,
        config: GRPOConfig,
        note: Callable[[str], None] = lambda _: None,
    ):
        beta, config.beta = config.beta, 0.0  # or else a second model would be loaded
        super().__init__(work, config, note)
        rows = (self._share.stop - self._share.start) * work.settings.group_size
        self._row_limit = work.micro_batch or rows
        self.remove_callback(PrinterCallback)
        config.beta = self.beta = beta
        if config.use_vllm:
            _tell_what_is_trained(self.vllm_generation, self._trained_weights)
        if beta:
            self.ref_model = ReferencePolicy(self.model, work.trainable)

    def create_optimizer(self, *args: Any, **rest: Any) -> Any:
        """Parameters at a multiple of the rate are in groups of their own, after the others."""
        new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **rest)
        parameters = self.work.trainable.parameters
        factors = {
            id(parameters[name]): factor for name, factor in self.work.trainable.factors.items()
        }
        if new and factors:
            for group in list(optimizer.param_groups):
                _split_off(optimizer, group, factors)
        return optimizer

    # --- Update ---

    def training_step(
        self,
        model: nn.Module,
        inputs: Any,
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Tensor:
        """Rollouts, then the gradient of the step's loss, in as many micro-batches as needed."""
        set_seed(step_seed(self.work.seed, self.state.global_step))
        model.train()
        batch = self._prepare_inputs(inputs)
        rows, columns = batch["completion_ids"].shape
        width = batch["prompt_ids"].shape[1] + columns
        limit = self._row_limit
        if self.work.micro_batch is None:
            limit = min(limit, max(1, self.work.chunk_tokens // width))
        limit = min(self._group.gather([limit]))
        loss, fitted = self._fitting(
            lambda size: self._gradient(model, batch, rows // _divisor(rows, size)),
            limit,
            MICRO_BATCH,
        )
        if fitted < limit:
            self._row_limit = fitted
        self._step += 1
        return loss

    def _gradient(self, model: nn.Module, batch: Mapping[str, Any], parts: int) -> Tensor:
        """Set the gradient of the step's loss; returns the loss."""
        model.zero_grad()
        total = torch.zeros((), device=self.args.device)
        # TRL's losses are divided by these two.
        self.current_gradient_accumulation_steps = self.args.steps_per_generation = parts
        try:
            for number, part in enumerate(split_tensor_dict(dict(batch), parts), start=1):
                # Gradients are added up here and averaged over the processes once, at the end.
                apart = self.accelerator.no_sync(model) if number < parts else nullcontext()
                with apart:
                    with self.compute_loss_context_manager():
                        loss = self.compute_loss(model, part)
                    self._require_finite(loss)
                    self.accelerator.backward(loss)
                total += loss.detach()
        finally:
            self.current_gradient_accumulation_steps = self.args.steps_per_generation = 1
        return total

    def _require_finite(self, loss: Tensor) -> None:
        losses = self._group.gather([float(loss.detach())])
        broken = [value for value in losses if not math.isfinite(value)]
        if broken:
            raise self._not_finite("loss", broken[0])

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if not torch.isfinite(torch.as_tensor(norm)):
            raise self._not_finite("gradient", float(norm))
        return norm

    def _not_finite(self, what: str, value: float) -> NotFiniteError:
        folder, rate = Path(self.args.output_dir), self._get_learning_rate()
        return not_finite(what, f"{value}", self.state.global_step, folder, rate)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **rest: Any,
    ) -> Any:
        """TRL's log-probabilities at the positions that tokens have without padding."""

        def positioned(**inputs: Any) -> Any:
            positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
            return model(**inputs, position_ids=positions)

        def attempt(size: int) -> Any:
            return super(LayerTrainer, self)._get_per_token_logps_and_entropies(
                positioned, input_ids, attention_mask, logits_to_keep, batch_size=size, **rest
            )

        if batch_size is None:  # one micro-batch of the update
            return attempt(len(input_ids))
        limit = min(self._row_limit, max(1, self.work.chunk_tokens // input_ids.shape[1]))
        limit = min(self._group.gather([limit]))
        return self._fitting(attempt, limit, MICRO_BATCH)[0]

    def _trained_weights(self) -> Iterator[tuple[str, Tensor]]:
        """What vLLM must be told after a step, by the names that it knows; all processes ask."""
        for name, parameter in self.work.trainable.parameters.items():
            yield name, whole(parameter.data)

    # --- Checkpoints ---

    def keep(self) -> None:
        """Write a checkpoint of the steps that are done."""
        save_checkpoint(
            Path(self.args.output_dir),
            self.state.global_step,
            self.work.trainable.parameters,
            self.optimizer,
            self.lr_scheduler,
            self.state,
            self._group,
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ARG002
        self.keep()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ARG002
        load_trained(Checkpoint(Path(resume_from_checkpoint)), self.work.trainable.parameters)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(Checkpoint(Path(checkpoint)), self.optimizer, self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: a step seeds what it uses."""

    def _send_telemetry(self) -> None:
        """TRL would report to its authors; what a person trains is their own affair."""


def _tell_what_is_trained(generation: Any, trained: Callable[[], Any]) -> None:
    """Let vLLM be told what is trained alone; a server first everything, once.

    It may still hold what an earlier run has trained.
    """

    def told_everything() -> None:
        type(generation).sync_weights(generation)
        generation._iter_named_params, generation._weight_metadata = trained, None
        del generation.sync_weights

    if generation.mode == "server":
        generation.sync_weights = told_everything
    else:
        generation._iter_named_params = trained


def _split_off(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], factors: Mapping[int, float]
) -> None:
    """Move parameters with a factor into groups at that multiple of their group's rate."""
    moved = [parameter for parameter in group["params"] if id(parameter) in factors]
    group["params"] = [p for p in group["params"] if id(p) not in factors]
    for factor in sorted({factors[id(parameter)] for parameter in moved}):
        own = [parameter for parameter in moved if factors[id(parameter)] == factor]
        optimizer.add_param_group({**group, "params": own, "lr": group["lr"] * factor})


def _divisor(rows: int, limit: int) -> int:
    """The largest micro-batch of at most `limit` rows that divides all rows evenly."""
    return next(size for size in range(min(rows, limit), 0, -1) if rows % size == 0)
