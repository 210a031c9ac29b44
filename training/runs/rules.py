"""What holds for a training run whatever trains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from layerpick.training.engine import patience
from layerpick.training.engine.patience import Earned, due
from layerpick.training.episodes.transcripts import Transcript
from layerpick.training.errors import LayerpickError
from layerpick.training.models.freezing import Boost
from layerpick.training.models.sharding import whole
from layerpick.training.processes import processes
from layerpick.training.runs.delta import DeltaOrigin, save_delta
from layerpick.training.runs.folder import DELTA_FILE, RunFolder
from layerpick.training.sweeps.multiplexed import Bench


class NotFiniteError(LayerpickError):
    """A loss or a gradient is infinite or not a number."""


def not_finite(what: str, value: str, step: int, folder: Path, rate: float) -> NotFiniteError:
    """What to say when the loss or gradient of the step after `step` others is not finite."""
    kept = f"the {step} steps before it are kept in {folder}; " if step else ""
    return NotFiniteError(
        f"The {what} of step {step} is {value}: {kept}start again elsewhere (--out) with a smaller "
        f"--learning-rate than {rate:g}."
    )


def refuse_float16(bench: Bench) -> None:
    """Raise LayerpickError for a model whose gradients would vanish."""
    if bench.model.dtype == torch.float16:
        raise LayerpickError("float16 is for inference: train with --dtype bfloat16 or float32.")


def require_signal(
    folder: RunFolder,
    done: int,
    last: int,
    told: Callable[[], Sequence[Transcript]],
    longest: int,
) -> None:
    """Raise NoSignalError when so many of `last` steps are done that a reward should have differed.

    `told` and `longest` are those of `layerpick.training.engine.patience`.
    """
    if due(done, last):
        values = [step.values for step in folder.metrics()]
        earned = [Earned(v.get("reward", 0.0), bool(v.get("signal"))) for v in values]
        patience.require_signal(earned, told, longest)


def save_trained(
    folder: RunFolder,
    bench: Bench,
    layers: tuple[int, ...] | None,
    trained: Mapping[str, Tensor],
    *,
    boost: Boost | None = None,
    steps: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Write what was trained, by its names in the model, as a delta of its origin."""
    identity = bench.model.identity
    origin = DeltaOrigin(
        base_model=identity.name,
        revision=identity.revision,
        weights_hash=identity.weights_hash,
        dtype=str(bench.model.dtype).removeprefix("torch."),
        layers=layers,
        boosted=boost.layers if boost else (),
        boost_factor=boost.factor if boost else 1.0,
        algorithm=bench.algorithm.name,
        task=bench.task.name,
        source=bench.task.source,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
    )
    weights = {name: whole(value.detach()) for name, value in trained.items()}
    if processes().first:
        save_delta(folder.path / DELTA_FILE, weights, origin)
