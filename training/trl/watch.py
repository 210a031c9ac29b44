"""What is watched while TRL trains: the freezing, the clock, the metrics, the reward."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from layerpick.training.models.freezing import ChangeCheck, check_optimizer, optimizer_bytes
from layerpick.training.runs.folder import RunFolder, StepMetrics
from layerpick.training.runs.rules import require_signal
from layerpick.training.trl.trainer import LayerTrainer


class Watch(TrainerCallback):
    """Proves the freezing on the first step that moves anything; writes each step's metrics."""

    def __init__(self, trainer: LayerTrainer, folder: RunFolder, on_step: Callable[[int], None]):
        self._trainer = trainer
        self._trainable = trainer.work.trainable
        self._folder = folder
        self._on_step = on_step
        self._check: ChangeCheck | None = None
        self._moves = False
        self._started = self._seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The optimizer holds exactly what is trained."""
        check_optimizer(self._trainer.model, self._trainable, self._trainer.optimizer)
        self._check = ChangeCheck(self._trainer.model, self._trainable)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()
        self._trainer.sampling_seconds = 0.0

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """See what should move."""
        if self._check is not None:
            rates = [group["lr"] for group in self._trainer.optimizer.param_groups]
            self._moves = self._check.before_step(min(rates))

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """See what has moved."""
        if self._check is not None and self._moves:
            self._check.after_step()
            self._check = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop the clock."""
        self._seconds = time.perf_counter() - self._started
        self._on_step(1)

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Write one step's metrics. Raises NoSignalError where the reward has never differed."""
        if logs is None or "loss" not in logs:
            return  # the summary at the end
        sampling = self._trainer.sampling_seconds
        self._folder.append(
            StepMetrics(
                step=state.global_step,
                sampling_seconds=sampling,
                update_seconds=self._seconds - sampling,
                trainable_parameters=self._trainable.count,
                optimizer_bytes=optimizer_bytes(self._trainer.optimizer),
                values={key: value for key, value in logs.items() if value is not None},
            )
        )
        longest = self._trainer.work.sampling.max_new_tokens
        require_signal(
            self._folder, state.global_step, state.max_steps, self._trainer.told, longest
        )
