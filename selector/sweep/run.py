"""From a model and a task to a measured sweep in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layerpick.calibration.sweeps.features import read_features, write_features
from layerpick.calibration.sweeps.store import FolderStore, sweep_folder
from layerpick.probes.base import Budget
from layerpick.probes.trials.on_policy import STEPS
from layerpick.selector.prepare import ModelChoice, Prepared, RolloutChoice, prepare
from layerpick.selector.progress import Reporter
from layerpick.selector.suggestion.probing import feature_table, probe
from layerpick.selector.training_run.run import default_rate
from layerpick.training.algorithms.base import Algorithm
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.episodes.scoring import held_out
from layerpick.training.errors import LayerpickError, NoSignalError
from layerpick.training.sweeps.multiplexed import Bench, SweepSettings, model_label, run_pass
from layerpick.training.sweeps.records import Rates, RunRecord
from layerpick.training.sweeps.sweep import (
    Measure,
    SweepPlan,
    choose_layers,
    default_rates,
    run_sweep,
)
from layerpick.training.tasks.base import TaskSettings

ENGINES = ("multiplexed", "trl")


@dataclass(frozen=True)
class SweepChoice:
    """What a person chose about a sweep."""

    layers: str = "all"
    """`all`, `0,4,8`, `middle:5` or `every:3`."""
    seeds: int = 1
    engine: str = "multiplexed"
    steps: int = 60
    learning_rates: tuple[float, ...] | None = None
    """None: by the model's size."""
    rates: Rates = "own"
    beta: float = 0.0
    heldout_prompts: int = 256
    heldout_samples: int = 4
    policies_per_pass: int | None = None
    probes: tuple[str, ...] = ()
    """Whose features are kept beside the runs."""
    probe_prompts: int = RolloutChoice.prompts
    """Prompts that the probes read."""


def measure_sweep(
    model: ModelChoice,
    task: str,
    settings: TaskSettings,
    algorithm: str | None,
    rollouts: RolloutChoice,
    choice: SweepChoice,
    root: Path,
    reporter: Reporter,
) -> Path:
    """Measure what the sweep's folder lacks; returns the folder.

    Raises LayerpickError for whatever the user can mend.
    """
    if choice.engine not in ENGINES:
        raise LayerpickError(f"The engine '{choice.engine}' is unknown: use {', '.join(ENGINES)}.")
    prepared = prepare(model, task, settings, rollouts)
    chosen = make_algorithm(algorithm or prepared.task.default_algorithm)
    loaded = prepared.model
    layers = choose_layers(choice.layers, len(loaded.layers))
    bench = Bench(
        model=loaded,
        task=prepared.task,
        algorithm=chosen,
        sampling=prepared.sampling,
        settings=SweepSettings(
            steps=choice.steps,
            prompts=rollouts.prompts,
            group_size=rollouts.group_size,
            beta=choice.beta,
        ),
        heldout=held_out(prepared.task, choice.heldout_prompts, choice.heldout_samples),
        learning_rates=choice.learning_rates or default_rates(loaded, choice.rates),
        rates=choice.rates,
    )
    folder = sweep_folder(root, model_label(loaded.identity), prepared.task.name, chosen.name)
    plan = SweepPlan(layers, choice.seeds, choice.policies_per_pass, choice.engine)
    records = run_sweep(bench, plan, FolderStore(folder), _measure(choice.engine), reporter)
    rate = _probed_rate(prepared, choice.rates, records)
    probed = replace(rollouts, prompts=choice.probe_prompts)
    _measure_features(prepared, chosen, probed, choice.probes, rate, folder, reporter)
    return folder


def _probed_rate(prepared: Prepared, rates: Rates, records: Sequence[RunRecord]) -> float:
    """What probes that train take as the rate: the shared one, or what `suggest` would take."""
    if rates == "own":
        return default_rate(prepared)
    return max(record.run.learning_rate or 0.0 for record in records if record.run.kind == "layer")


def _measure_features(
    prepared: Prepared,
    algorithm: Algorithm,
    rollouts: RolloutChoice,
    probes: tuple[str, ...],
    learning_rate: float,
    folder: Path,
    reporter: Reporter,
) -> None:
    """Keep the features of the probes beside the runs, unless they lie there already."""
    known = read_features(folder)
    if not probes or (known is not None and set(probes) <= set(known.costs)):
        return
    try:
        probed = probe(
            prepared,
            algorithm,
            rollouts,
            probes,
            learning_rate,
            budget=Budget(warm_up_steps=STEPS),
            seed=0,
            reporter=reporter,
        )
    except NoSignalError as error:
        reporter.note(f"No features are kept beside the runs: {error}")
        return
    write_features(feature_table(prepared, algorithm, probed), folder)


def _measure(engine: str) -> Measure:
    if engine == "multiplexed":
        return run_pass
    from layerpick.training.sweeps.one_by_one import run_trl_pass

    return run_trl_pass
