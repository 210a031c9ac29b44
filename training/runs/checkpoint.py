"""Small checkpoints of a training run: what is trained, its optimizer, and the step.

No file is pickled: tensors are safetensors with a checksum, everything else is JSON. There are no
random states to keep, because every step begins with seeds of its own, made of the run's seed and
the step.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerpick.training.errors import LayerpickError
from layerpick.training.files import replacing
from layerpick.training.models.sharding import alike, whole
from layerpick.training.processes import ALONE, Processes
from layerpick.training.reading import reading
from layerpick.training.tensor_files import read_tensors, require_finite, save_tensors

TRAINED_FILE = "trained.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
FORMAT = "layerpick-checkpoint-1"
_WHAT, _REMEDY = "part of a checkpoint", "delete its folder to go on without it"
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder."""

    folder: Path

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.folder.name.partition("-")[2])


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run; unfinished ones have other names."""
    found = [Checkpoint(path) for path in run.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def save_checkpoint(
    run: Path,
    step: int,
    trained: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: Any = None,
    trainer_state: Any = None,
    group: Processes = ALONE,
) -> None:
    """Write a checkpoint whole or not at all, then remove the older ones.

    `scheduler` and `trainer_state` are those of TRL's trainer, where it trains. All processes of a
    group must call; the first one writes. Raises LayerpickError when training has ruined the
    weights.
    """
    older = [path for path in run.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    target = run / f"checkpoint-{step}"
    tensors, values = _optimizer_state(optimizer)
    if scheduler is not None:
        values["scheduler"] = scheduler.state_dict()
    weights, tensors = _gathered(trained), _gathered(tensors)
    require_finite(weights, "The trained weight", "the run diverged; use a lower --learning-rate")
    if not group.first:
        return
    with replacing(target) as folder:
        folder.mkdir()
        named = {"format": FORMAT, "step": str(step)}
        save_tensors(folder / TRAINED_FILE, weights, named)
        save_tensors(folder / OPTIMIZER_FILE, tensors, {**named, "values": json.dumps(values)})
        if trainer_state is not None:
            from transformers.trainer import TRAINER_STATE_NAME

            trainer_state.save_to_json(str(folder / TRAINER_STATE_NAME))
    for path in older:
        if path != target:
            shutil.rmtree(path, ignore_errors=True)


def load_trained(checkpoint: Checkpoint, trained: Mapping[str, Tensor]) -> None:
    """Copy a checkpoint's weights into the parameters of the same names.

    Raises LayerpickError when they are damaged, or not the same parameters.
    """
    saved, _ = _read(checkpoint, TRAINED_FILE)
    shapes = {name: tensor.shape for name, tensor in trained.items()}
    if {name: tensor.shape for name, tensor in saved.items()} != shapes:
        raise LayerpickError(
            f"{checkpoint.folder} holds other parameters than the layers to train: use another "
            f"--out."
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(alike(saved[name], parameter))


def load_optimizer(
    checkpoint: Checkpoint, optimizer: torch.optim.Optimizer, scheduler: Any = None
) -> None:
    """Bring an optimizer and its schedule to where the checkpoint was made.

    Raises LayerpickError when it is damaged.
    """
    tensors, header = _read(checkpoint, OPTIMIZER_FILE)
    with reading(checkpoint.folder / OPTIMIZER_FILE, _WHAT, _REMEDY):
        values = json.loads(header["values"])
        state: dict[int, dict[str, Any]] = {
            int(index): dict(plain) for index, plain in values["plain"].items()
        }
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for name, tensor in tensors.items():
            index, _, key = name.partition(".")
            parameter = held[int(index)]
            state[int(index)][key] = alike(tensor, parameter) if tensor.ndim else tensor
        # The groups' settings are those of the same command; only the schedule moves the rates.
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        for group, rate in zip(optimizer.param_groups, values["learning_rates"], strict=True):
            group["lr"] = rate
        if scheduler is not None:
            scheduler.load_state_dict(values["scheduler"])


def check_state(checkpoint: Checkpoint) -> None:
    """Raise LayerpickError unless the trainer's own notes are whole, and of this very step."""
    from transformers import TrainerState
    from transformers.trainer import TRAINER_STATE_NAME

    path = checkpoint.folder / TRAINER_STATE_NAME
    with reading(path, _WHAT, _REMEDY):
        step = TrainerState.load_from_json(str(path)).global_step
        if step != checkpoint.step:
            raise ValueError(f"it is of step {step}")


def _read(checkpoint: Checkpoint, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A checked file of a checkpoint, if it is of the step in the folder's name."""
    path = checkpoint.folder / name
    tensors, header = read_tensors(path, FORMAT, _WHAT, _REMEDY)
    with reading(path, _WHAT, _REMEDY):
        if header["step"] != str(checkpoint.step):
            raise ValueError(f"it is of step {header['step']}")
    return tensors, header


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by `parameter.key`, and all other values, which JSON can hold."""
    state = optimizer.state_dict()["state"]
    tensors = {
        f"{index}.{key}": value
        for index, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
    plain = {
        index: {key: value for key, value in values.items() if not isinstance(value, Tensor)}
        for index, values in state.items()
    }
    rates = [group["lr"] for group in optimizer.param_groups]
    return tensors, {"plain": plain, "learning_rates": rates}


def _gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(tensor.detach()).contiguous() for name, tensor in tensors.items()}
