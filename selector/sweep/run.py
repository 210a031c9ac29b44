"""From a model and a task to a measured sweep in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerpick.calibration.sweeps.features import read_features, write_features
from layerpick.calibration.sweeps.store import FolderStore, sweep_folder
from layerpick.probes.base import Budget
from layerpick.probes.table import chosen_probes
from layerpick.probes.trials.on_policy import STEPS
from layerpick.selector.prepare import Prepared, prepare
from layerpick.selector.progress import Reporter
from layerpick.selector.settings import (
    HeldOutChoice,
    ModelChoice,
    RlSettings,
    RolloutChoice,
    SamplingChoice,
)
from layerpick.selector.suggestion.probing import feature_table, probe
from layerpick.selector.sweep.settings import SweepChoice
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
from layerpick.training.tasks.settings import TaskSettings

ENGINES = ("multiplexed", "trl")


def measure_sweep(
    model: ModelChoice,
    task: str,
    settings: TaskSettings,
    algorithm: str | None,
    sampling: SamplingChoice,
    rl: RlSettings,
    heldout: HeldOutChoice,
    choice: SweepChoice,
    root: Path,
    reporter: Reporter,
) -> Path:
    """Measure what the sweep's folder lacks; returns the folder.

    Raises LayerpickError for whatever the user can mend.
    """
    if choice.engine not in ENGINES:
        raise LayerpickError(f"The engine '{choice.engine}' is unknown: use {', '.join(ENGINES)}.")
    probes = () if choice.probes == "none" else chosen_probes(choice.probes)
    prepared = prepare(model, task, settings, sampling)
    chosen = make_algorithm(algorithm or prepared.task.default_algorithm)
    loaded = prepared.model
    rates: Rates = "shared" if choice.shared_lr else "own"
    layers = choose_layers(choice.layers, len(loaded.layers))
    bench = Bench(
        model=loaded,
        task=prepared.task,
        algorithm=chosen,
        sampling=prepared.sampling,
        settings=SweepSettings(**vars(rl)),
        heldout=held_out(prepared.task, heldout.heldout_prompts, heldout.heldout_samples),
        learning_rates=choice.learning_rates or default_rates(loaded, rates),
        rates=rates,
    )
    folder = sweep_folder(
        root, model_label(loaded.identity), prepared.task.name, chosen.name, choice.name
    )
    plan = SweepPlan(layers, choice.seeds, choice.policies_per_pass, choice.engine)
    records = run_sweep(bench, plan, FolderStore(folder), _measure(choice.engine), reporter)
    rate = _probed_rate(prepared, rates, records)
    rollouts = RolloutChoice(choice.probe_prompts, rl.group_size)
    _measure_features(prepared, chosen, rollouts, probes, rate, folder, reporter)
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
