"""TRL's GRPOTrainer with a task's prompts, rollouts and rewards.

Step t of seed s asks the same prompts with the same noise as a step of a sweep. Where TRL's own
generation is wanted (vLLM, or sampling options that only it has), prompts are rendered and
completions cut as everywhere else; that serves single-turn tasks only. Processes that train
together (DDP, FSDP2) answer a share of a step's prompts each.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from layerpick.training.algorithms.base import Algorithm
from layerpick.training.engine.loop import step_seed
from layerpick.training.episodes.play import SamplingSettings, Stops, play
from layerpick.training.episodes.rendering import Renderer
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.episodes.transcripts import Transcript, transcribe
from layerpick.training.errors import LayerpickError
from layerpick.training.models.freezing import Trainable
from layerpick.training.models.loading import LoadedModel
from layerpick.training.processes import processes
from layerpick.training.settings import RlSettings
from layerpick.training.tasks.base import Prompt, SingleTurnTask, Task

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


class TaskTrainer(GRPOTrainer):
    """GRPO on a task; rows that do not fit into memory are halved."""

    def __init__(self, work: Assignment, config: GRPOConfig, note: Callable[[str], None]):
        self.work = work
        self._note = note
        self._decoding_rows = work.sampling.rows
        self._group = processes()
        self._share = self._group.share(work.settings.prompts)
        self._asked: tuple[Prompt, ...] = ()
        self.episodes: list[Trajectory] = []
        self.sampling_seconds = 0.0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*rollout_func.*")
            super().__init__(
                model=work.model.model,
                reward_funcs=self.task_reward,
                args=config,
                # A step's prompts follow from its number; the data set only sets the pace.
                train_dataset=Dataset.from_dict(
                    {"prompt": [""] * (work.settings.prompts * config.max_steps)}
                ),
                processing_class=work.model.tokenizer,
                rollout_func=self._rollouts if work.own_generation else None,
            )

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
