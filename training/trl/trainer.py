"""TRL's GRPOTrainer on this package's tasks, environments and sampler.

TRL computes rewards' advantages, losses and updates. What differs here:

* prompts, rollouts and rewards come from the task, as in a sweep: step t of seed s asks the same
  prompts with the same noise. Where TRL's own generation is wanted (vLLM, or sampling options that
  only it has), prompts are rendered and completions cut as everywhere else;
* a step's rows are split into micro-batches here, so that one which does not fit into memory can
  be halved and the step taken again from its beginning;
* with a KL penalty, the reference policy is the model itself with its original weights put back;
* processes that train together (DDP, FSDP2) answer a share of a step's prompts each;
* vLLM is sent what is trained, and nothing else: the rest it has loaded itself;
* a checkpoint holds what is trained and its optimizer, and nothing is sent to anybody.

Limits: TRL's own generation serves single-turn tasks only; with several processes nothing is
halved in the update when memory runs out, because all of them would have to know.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from torch import Tensor, nn
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from layerpick.training.algorithms.base import Algorithm
from layerpick.training.engine.loop import step_seed
from layerpick.training.episodes.play import SamplingSettings, Stops, play
from layerpick.training.episodes.rendering import Renderer
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.episodes.transcripts import Transcript, transcribe
from layerpick.training.errors import LayerpickError
from layerpick.training.models.freezing import Trainable
from layerpick.training.models.loading import LoadedModel
from layerpick.training.models.sharding import whole
from layerpick.training.processes import processes
from layerpick.training.runs.checkpoint import (
    Checkpoint,
    load_optimizer,
    load_trained,
    save_checkpoint,
)
from layerpick.training.runs.rules import NotFiniteError, not_finite
from layerpick.training.settings import RlSettings
from layerpick.training.tasks.base import Prompt, SingleTurnTask, Task
from layerpick.training.trl.reference import ReferencePolicy

MICRO_BATCH = "micro-batch"


@dataclass(frozen=True)
class Assignment:
    """What a trainer works on."""

    model: LoadedModel
    task: Task
    algorithm: Algorithm
    sampling: SamplingSettings
    trainable: Trainable
    settings: RlSettings
    seed: int
    chunk_tokens: int
    """Tokens of one micro-batch, unless `micro_batch` says otherwise."""
    micro_batch: int | None = None
    """Rows of one micro-batch."""
    own_generation: bool = True
    """Sample with this package's sampler, not TRL's."""


class LayerTrainer(GRPOTrainer):
    """GRPO and Dr. GRPO; what is trained has been chosen before, by `freeze`."""

    def __init__(
        self,
        work: Assignment,
        config: GRPOConfig,
        note: Callable[[str], None] = lambda _: None,
    ):
        self.work = work
        self._note = note
        self._decoding_rows = work.sampling.rows
        self._group = processes()
        self._share = self._group.share(work.settings.prompts)
        rows = (self._share.stop - self._share.start) * work.settings.group_size
        self._row_limit = work.micro_batch or rows
        self._asked: tuple[Prompt, ...] = ()
        self.episodes: list[Trajectory] = []
        self.sampling_seconds = 0.0
        rows = work.settings.prompts * config.max_steps
        beta, config.beta = config.beta, 0.0  # or else a second model would be loaded
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*rollout_func.*")
            super().__init__(
                model=work.model.model,
                reward_funcs=self.task_reward,
                args=config,
                # A step's prompts follow from its number; the data set only sets the pace.
                train_dataset=Dataset.from_dict({"prompt": [""] * rows}),
                processing_class=work.model.tokenizer,
                rollout_func=self._rollouts if work.own_generation else None,
            )
        self.remove_callback(PrinterCallback)
        config.beta = self.beta = beta
        if config.use_vllm:
            self.vllm_generation._iter_named_params = self._trained_weights
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

    # --- Rollouts ---

    def _generate_and_score_completions(
        self,
        inputs: list[dict[str, Any]],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Replace the pace-making rows by this step's prompts."""
        work = self.work
        seed = step_seed(work.seed, self.state.global_step)
        prompts = work.task.prompts("train", work.settings.prompts, seed)[self._share]
        renderer = Renderer.of(work.model.tokenizer, work.task)
        tokens = [list(renderer.tokens(prompt)) for prompt in prompts]
        texts = work.model.tokenizer.batch_decode(tokens)
        self._asked = tuple(p for p in prompts for _ in range(work.settings.group_size))
        self._tokens = [ids for ids in tokens for _ in range(work.settings.group_size)]
        rows = [{"prompt": text} for text in texts for _ in range(work.settings.group_size)]
        output = super()._generate_and_score_completions(rows)
        signal = self._group.gather([bool(output["advantages"].any())])
        self._metrics["train"]["signal"].append(float(any(signal)))
        return output

    def _generate(self, prompts: list[str]) -> Any:
        start = time.perf_counter()
        result = super()._generate(prompts)
        self.sampling_seconds += time.perf_counter() - start
        return result

    def _rollouts(self, prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:  # noqa: ARG002
        """Play this step's episodes; TRL's `rollout_func`."""
        training = self.model.training
        self.model.eval()
        try:
            with self._group.in_step(self.model):
                self.episodes = self._play()
        finally:
            self.model.train(training)
        failed = self._group.gather([episode.failure is not None for episode in self.episodes])
        self._metrics["train"]["failed_episodes"].append(float(sum(failed)))
        cut = self._group.gather([episode.cut for episode in self.episodes])
        self._metrics["train"]["cut"].append(sum(cut) / max(len(cut), 1))
        return {
            "prompt_ids": [list(e.tokens[: e.prompt_length]) for e in self.episodes],
            "completion_ids": [list(e.tokens[e.prompt_length :]) for e in self.episodes],
            "env_mask": [
                e.model_mask[e.prompt_length :].astype(int).tolist() for e in self.episodes
            ],
            "logprobs": None,
            "episode_reward": [episode.reward for episode in self.episodes],
        }

    def told(self) -> list[Transcript]:
        """The last step's episodes as text; empty where TRL has generated them."""
        prompts = self._asked[:: self.work.settings.group_size]
        return transcribe(self.work.model, self.work.task, prompts, self.episodes)

    def _play(self) -> list[Trajectory]:
        work = self.work

        def attempt(rows: int) -> list[Trajectory]:
            return play(
                work.model,
                work.task,
                self._asked[:: work.settings.group_size],
                work.settings.group_size,
                replace(work.sampling, rows=rows),
                seed=step_seed(work.seed, self.state.global_step),
                streams=(work.trainable.stream,),
                first=self._share.start,
            )

        episodes, self._decoding_rows = self._fitting(
            attempt, self._decoding_rows, "decoding batch"
        )
        return episodes

    def _tokenize_prompts(
        self,
        prompts: list[str],  # noqa: ARG002
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Tokens as the task's renderer gives them, for TRL's own generation."""
        return self._tokens, None, {}

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """TRL's own generation, ended where a completion holds a stop string."""
        completions, log_probs = super()._generate_single_turn(*args, **kwargs)
        stops = Stops(self.work.model, self.work.sampling.stop)
        ends = [
            next((end for end in range(1, len(ids)) if stops.ends(ids[:end])), len(ids))
            for ids in completions
        ]
        cut = [ids[:end] for ids, end in zip(completions, ends, strict=True)]
        if log_probs is not None:
            log_probs = [row[:end] for row, end in zip(log_probs, ends, strict=True)]
        return cut, log_probs

    def task_reward(
        self,
        completion_ids: list[list[int]],
        episode_reward: list[float] | None = None,
        **_: Any,
    ) -> list[float]:
        """The episodes' rewards, or the task's judgement of what TRL has generated."""
        if episode_reward is not None:
            return episode_reward
        start = time.perf_counter()
        assert isinstance(self.work.task, SingleTurnTask), "episodes need their own rollouts"
        stops = Stops(self.work.model, self.work.sampling.stop)
        rewards = self.work.task.rewards(self._asked, [stops.text(ids) for ids in completion_ids])
        self.sampling_seconds += time.perf_counter() - start
        return rewards

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

    def _fitting(self, attempt: Callable[[int], Any], size: int, what: str) -> tuple[Any, int]:
        """What `attempt` returns at the first size that fits into memory, and that size."""
        while True:
            try:
                return attempt(size), size
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if what == MICRO_BATCH and self._group.count > 1:
                    raise LayerpickError(
                        f"Step {self.state.global_step} does not fit into memory with a "
                        f"{what} of {size} rows: give a smaller --micro-batch."
                    ) from error
                if size == 1:
                    raise LayerpickError(
                        f"Step {self.state.global_step} does not fit into memory even with a "
                        f"{what} of one row: give a shorter --max-new-tokens, or "
                        f"--gradient-checkpointing."
                    ) from error
            size = max(1, size // 2)
            self._note(f"Out of memory: the {what} is halved to {size} rows and tried again.")
            clear_device_cache(garbage_collection=True)

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
