"""Train the named layers of a model with TRL, in a run folder that a kill cannot spoil."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from trl import GRPOConfig

from layerpick.training.errors import LayerpickError, NoSignalError
from layerpick.training.models.freezing import (
    Boost,
    Trainable,
    freeze,
    no_graph_below,
    thaw,
)
from layerpick.training.processes import processes
from layerpick.training.reading import reason_of
from layerpick.training.runs.checkpoint import check_state, latest_checkpoint, load_trained
from layerpick.training.runs.folder import (
    RunDescription,
    RunFolder,
    TrainingCost,
)
from layerpick.training.runs.rules import NotFiniteError, refuse_float16, save_trained
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.tasks.base import SingleTurnTask
from layerpick.training.trl.advantages import OwnAdvantagesTrainer
from layerpick.training.trl.rollouts import Assignment
from layerpick.training.trl.trainer import LayerTrainer
from layerpick.training.trl.watch import Watch

VLLM_MODES = ("server", "colocate")
REPORTERS = ("trackio", "wandb", "tensorboard")
OWN_GENERATION_OF_TRL = (
    "cache_implementation",
    "generation_kwargs",
    "min_p",
    "repetition_penalty",
    "top_k",
    "top_p",
    "use_transformers_continuous_batching",
)
"""Fields that only TRL's own generation knows."""


@dataclass(frozen=True)
class TrlSettings:
    """What a run adds to its bench."""

    layers: tuple[int, ...] | None
    """Decoder layers to train; None: every parameter."""
    learning_rate: float
    seed: int = 0
    micro_batch: int | None = None
    """Rows of one backward pass; None: as many as `chunk_tokens` hold."""
    gradient_checkpointing: bool = False
    checkpoint_every: int = 10
    """Steps."""
    vllm: str | None = None
    """`server` or `colocate`: TRL generates with vLLM."""
    report_to: tuple[str, ...] = ()
    trl: Mapping[str, Any] = field(default_factory=dict)
    """More fields of GRPOConfig."""
    boost: Boost | None = None
    """Layers at a multiple of the learning rate."""

    def describe(self, bench: Bench) -> RunDescription:
        """What makes the run what it is."""
        return RunDescription(
            settings=bench.run_settings("trl"),
            layers=self.layers,
            learning_rate=self.learning_rate,
            seed=self.seed,
            micro_batch=self.micro_batch,
            gradient_checkpointing=self.gradient_checkpointing,
            vllm=self.vllm,
            trl=dict(self.trl),
            boosted=self.boost.layers if self.boost else (),
            boost_factor=self.boost.factor if self.boost else 1.0,
        )


def train(
    bench: Bench,
    settings: TrlSettings,
    folder: RunFolder,
    *,
    on_step: Callable[[int], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> TrainingCost:
    """Train in place until the bench's steps are done, from the folder's last checkpoint if any.

    Afterwards the model has one number format again and requires no gradients, and the folder
    holds the metrics and the trained weights. Raises LayerpickError for what the user can mend; a
    run that is broken off so keeps what it had learned.
    """
    network, dtype = bench.model.model, bench.model.dtype
    _refuse(bench, settings)
    trainable = freeze(bench.model, settings.layers, settings.boost)
    try:
        # TRL speaks to transformers by names that are on their way out.
        with (
            warnings.catch_warnings(action="ignore", category=FutureWarning),
            no_graph_below(network),
        ):
            _train(bench, settings, trainable, folder, on_step, note)
        return folder.cost()
    finally:
        # TRL's head, accelerate's autocast, and the mark that it need not be put in again.
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            vars(network).pop(name, None)
        thaw(bench.model, trainable, dtype)
        network.eval()


def _train(
    bench: Bench,
    settings: TrlSettings,
    trainable: Trainable,
    folder: RunFolder,
    on_step: Callable[[int], None],
    note: Callable[[str], None],
) -> None:
    checkpoint = latest_checkpoint(folder.path)
    done = checkpoint.step if checkpoint else 0
    folder.begin(done)
    on_step(done)
    if checkpoint:
        check_state(checkpoint)
    if checkpoint and done >= bench.settings.steps:
        load_trained(checkpoint, trainable.parameters)
    else:
        if checkpoint:
            note(f"Going on from step {done} of {bench.settings.steps}.")
        trainer = make_trainer(bench, settings, trainable, folder, on_step, note)
        try:
            trainer.train(str(checkpoint.folder) if checkpoint else None)
        except LayerpickError as error:
            # Sharded weights need all processes, and only these errors meet all of them.
            everywhere = isinstance(error, NotFiniteError | NoSignalError)
            taken = trainer.state.global_step
            if taken and (everywhere or processes().count == 1):
                trainer.keep()
                _save(bench, settings, trainable, folder, taken)
            raise
    _save(bench, settings, trainable, folder, bench.settings.steps)


def _save(
    bench: Bench, settings: TrlSettings, trainable: Trainable, folder: RunFolder, steps: int
) -> None:
    save_trained(
        folder,
        bench,
        settings.layers,
        trainable.parameters,
        boost=settings.boost,
        steps=steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )


def make_trainer(
    bench: Bench,
    settings: TrlSettings,
    trainable: Trainable,
    folder: RunFolder,
    on_step: Callable[[int], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> LayerTrainer:
    """The trainer of a frozen model, before its first step."""
    work = Assignment(
        model=bench.model,
        task=bench.task,
        algorithm=bench.algorithm,
        sampling=bench.sampling,
        trainable=trainable,
        settings=bench.settings,
        seed=settings.seed,
        chunk_tokens=bench.chunk_tokens,
        micro_batch=settings.micro_batch,
        own_generation=not _trl_generates(settings),
    )
    kind = LayerTrainer if bench.algorithm.advantages_by_trl else OwnAdvantagesTrainer
    config = make_config(bench, settings, str(folder.path))
    try:
        trainer = kind(work, config, note)
    except Exception as error:
        if not settings.trl or isinstance(error, LayerpickError):
            raise
        told = ", ".join(settings.trl)
        raise LayerpickError(f"TRL refuses --trl ({told}): {reason_of(error)}.") from error
    trainer.add_callback(Watch(trainer, folder, on_step))
    return trainer


def make_config(bench: Bench, settings: TrlSettings, output: str) -> GRPOConfig:
    """TRL's configuration of a run. Raises LayerpickError for values that TRL refuses."""
    chosen, model = bench.settings, bench.model
    values: dict[str, Any] = {
        **bench.algorithm.trl,
        "output_dir": output,
        "max_steps": chosen.steps,
        "per_device_train_batch_size": chosen.prompts * chosen.group_size // processes().count,
        "num_generations": chosen.group_size,
        "max_completion_length": bench.sampling.max_new_tokens * bench.task.max_turns,
        "temperature": bench.sampling.temperature,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": chosen.max_grad_norm,
        "beta": chosen.beta,
        "epsilon": chosen.epsilon,
        "disable_dropout": True,
        "seed": settings.seed,
        "use_cpu": model.device.type == "cpu",
        "bf16": model.dtype == torch.bfloat16,
        "gradient_checkpointing": settings.gradient_checkpointing,
        # The other kind needs inputs that require gradients: the graph would begin below.
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_every,
        "report_to": list(settings.report_to),
        "disable_tqdm": True,
        "shuffle_dataset": False,
        "remove_unused_columns": False,
        "ignore_data_skip": True,
        "use_vllm": settings.vllm is not None,
    }
    if settings.vllm:
        values["vllm_mode"] = settings.vllm
        values["vllm_server_host"] = "127.0.0.1"
        values["generation_kwargs"] = {
            "stop": list(bench.sampling.stop),
            "include_stop_str_in_output": True,
        }
    try:
        config = GRPOConfig(**{**values, **settings.trl})
    except Exception as error:  # a library's: whatever it is, these settings are at fault
        raise LayerpickError(f"TRL refuses these settings: {reason_of(error)}.") from error
    _ = config.device  # counts the GPUs
    config._n_gpu = min(config.n_gpu, 1)  # or else TRL would ask to hide the others
    return config


def _trl_generates(settings: TrlSettings) -> bool:
    return settings.vllm is not None or any(name in settings.trl for name in OWN_GENERATION_OF_TRL)


def _refuse(bench: Bench, settings: TrlSettings) -> None:
    refuse_float16(bench)
    if settings.vllm not in (None, *VLLM_MODES):
        raise LayerpickError(f"--vllm '{settings.vllm}' is unknown: use {' or '.join(VLLM_MODES)}.")
    episodes = not isinstance(bench.task, SingleTurnTask) or not bench.algorithm.advantages_by_trl
    if _trl_generates(settings) and episodes:
        raise LayerpickError(
            "vLLM and TRL's own sampling options write single turns: leave them out with the "
            "agentic task and with gigpo."
        )
    _require_installed(settings)
    group = processes()
    if bench.settings.prompts % group.count:
        raise LayerpickError(
            f"--prompts {bench.settings.prompts} must be a multiple of the {group.count} processes."
        )
    if bench.model.device.index and group.count == 1:
        raise LayerpickError(
            f"Training uses the first visible GPU: set CUDA_VISIBLE_DEVICES="
            f"{bench.model.device.index} and use --device cuda."
        )
    iterations = int(settings.trl.get("num_iterations", 1))
    if settings.checkpoint_every % iterations:
        raise LayerpickError(
            f"--checkpoint-every {settings.checkpoint_every} must be a multiple of num_iterations "
            f"({iterations}): between them, rollouts are in use."
        )


def _require_installed(settings: TrlSettings) -> None:
    wanted = {"--vllm": "vllm"} if settings.vllm else {}
    for name in settings.report_to:
        if name not in REPORTERS:
            raise LayerpickError(f"--report-to '{name}' is unknown: use {', '.join(REPORTERS)}.")
        wanted[f"--report-to {name}"] = name
    for option, package in wanted.items():
        if find_spec(package) is None:
            raise LayerpickError(
                f"{option} needs the package {package}, which is not installed: "
                f"pip install {package}."
            )
