"""What trains: TRL, or this package's own engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from layerpick.selector.training_run.settings import TrainingChoice
from layerpick.training.errors import LayerpickError
from layerpick.training.models.freezing import Boost
from layerpick.training.processes import processes
from layerpick.training.runs.folder import RunDescription, TrainingCost
from layerpick.training.sweeps.multiplexed import Bench

ENGINES = ("trl", "own")
TRL_ALONE = ("micro_batch", "gradient_checkpointing", "vllm", "report_to", "trl")
"""What only TRL's engine can do."""


def check_engine(choice: TrainingChoice, boosts: bool) -> None:
    """Raise LayerpickError for an unknown engine, and for options that it does not have."""
    if choice.engine not in ENGINES:
        raise LayerpickError(f"The engine '{choice.engine}' is unknown: use {', '.join(ENGINES)}.")
    if choice.engine == "trl":
        from layerpick.training.trl.options import parse_trl_options

        parse_trl_options(choice.trl)
        return
    given = [name for name in TRL_ALONE if getattr(choice, name) != getattr(TrainingChoice, name)]
    for name in [*given, *(["boost"] if boosts else [])]:
        option = "--" + name.replace("_", "-")
        raise LayerpickError(f"{option} is TRL's: leave it out with --engine {choice.engine}.")


def engine_of(
    choice: TrainingChoice,
    bench: Bench,
    layers: tuple[int, ...] | None,
    boost: Boost | None,
    seed: int,
) -> tuple[RunDescription, Callable[..., TrainingCost]]:
    """What the run is, and the engine's `train`, which still wants the folder."""
    check_engine(choice, boost is not None)
    rate = bench.learning_rates[0]
    if choice.engine == "own":
        from layerpick.training.engine import run as own

        if processes().count > 1:
            raise LayerpickError("--engine own trains in one process: use --engine trl.")

        settings = own.OwnSettings(layers, rate, seed, choice.checkpoint_every)
        return settings.describe(bench), partial(own.train, bench, settings)
    from layerpick.training.trl import run as trl
    from layerpick.training.trl.options import parse_trl_options

    trl_settings = trl.TrlSettings(
        layers=layers,
        boost=boost,
        learning_rate=rate,
        seed=seed,
        micro_batch=choice.micro_batch,
        gradient_checkpointing=choice.gradient_checkpointing,
        checkpoint_every=choice.checkpoint_every,
        vllm=choice.vllm,
        report_to=tuple(choice.report_to),
        trl=parse_trl_options(choice.trl),
    )
    return trl_settings.describe(bench), partial(trl.train, bench, trl_settings)
