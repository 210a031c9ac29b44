"""From a model and a task to a measured sweep in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerpick.calibration.sweeps.features import FeatureTable, read_features, write_features
from layerpick.calibration.sweeps.measured import read_sweep
from layerpick.calibration.sweeps.store import FolderStore, read_folder, sweep_folder
from layerpick.calibration.sweeps.values import Sweep
from layerpick.probes.base import ProbeSizes
from layerpick.probes.table import chosen_probes, find_probe
from layerpick.probes.trials.on_policy import STEPS
from layerpick.selector.prepare import Prepared, default_rate
from layerpick.selector.progress import Reporter, Silent
from layerpick.selector.settings import (
    TRAINING_SAMPLING,
    HeldOutChoice,
    ModelChoice,
    RlSettings,
    RolloutChoice,
    SamplingChoice,
)
from layerpick.selector.suggestion.probing import feature_table, probe
from layerpick.selector.sweep.recipe import BenchRecipe, open_passes
from layerpick.selector.sweep.settings import HERE, ClusterChoice, SweepChoice
from layerpick.training.errors import NoSignalError
from layerpick.training.models.choosing import choose_layers
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.sweeps.records import RunRecord
from layerpick.training.sweeps.sweep import SweepPlan, complete_sweep
from layerpick.training.tasks.settings import TaskSettings


def sweep(
    model: ModelChoice | str | None = None,
    task: str = "math",
    *,
    settings: TaskSettings | None = None,
    algorithm: str | None = None,
    sampling: SamplingChoice = TRAINING_SAMPLING,
    rl: RlSettings | None = None,
    heldout: HeldOutChoice | None = None,
    choice: SweepChoice | None = None,
    cluster: ClusterChoice = HERE,
    out: Path | str = "sweeps",
    reporter: Reporter | None = None,
) -> Sweep:
    """Measure which layer RL should train: every layer alone, against full-parameter RL.

    What lies below `out` already is not measured again. Raises LayerpickError for whatever the
    user can mend.
    """
    folder = measure_sweep(
        model if isinstance(model, ModelChoice) else ModelChoice(model),
        task,
        settings or TaskSettings(),
        algorithm,
        sampling,
        rl or RlSettings(),
        heldout or HeldOutChoice(),
        choice or SweepChoice(),
        Path(out),
        reporter or Silent(),
        cluster,
    )
    return read_sweep(read_folder(folder)).sweep


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
    cluster: ClusterChoice = HERE,
) -> Path:
    """Measure what the sweep's folder lacks, here or on a cluster; returns the folder.

    Raises LayerpickError for whatever the user can mend.
    """
    probes = () if choice.probes == "none" else chosen_probes(choice.probes)
    recipe = BenchRecipe(model, task, settings, algorithm, sampling, rl, heldout, choice)
    with open_passes(recipe, cluster, reporter) as (facts, passes):
        run = facts.settings
        layers = choose_layers(choice.layers, run.layers)
        plan = SweepPlan(layers, choice.seeds, choice.policies_per_pass, choice.engine)
        folder = sweep_folder(root, run.model, run.task, run.algorithm, choice.name)
        records = complete_sweep(facts, plan, FolderStore(folder), passes, reporter)
        known = read_features(folder)
        lacking = tuple(n for n in probes if not known or find_probe(n).name not in known.costs)
        if lacking:
            rollouts = RolloutChoice(choice.probe_prompts, rl.group_size)
            rate = _shared_rate(records) if choice.shared_lr else None
            table = passes.call(features_of, rollouts, lacking, rate)
            if table is not None:
                write_features(known.joined(table) if known else table, folder)
    return folder


def features_of(
    bench: Bench,
    rollouts: RolloutChoice,
    probes: tuple[str, ...],
    learning_rate: float | None,
    reporter: Reporter,
) -> FeatureTable | None:
    """What the probes find about a bench's model, or None if there is no signal to find.

    Probes that train take the learning rate, or what `layerpick suggest` would take.
    """
    prepared = Prepared(bench.model, bench.task, bench.sampling)
    try:
        probed = probe(
            prepared,
            bench.algorithm,
            rollouts,
            probes,
            learning_rate or default_rate(prepared),
            sizes=ProbeSizes(on_policy_steps=STEPS),
            seed=0,
            reporter=reporter,
        )
    except NoSignalError as error:
        reporter.note(f"No features are kept beside the runs: {error}")
        return None
    return feature_table(prepared, bench.algorithm, probed)


def _shared_rate(records: Sequence[RunRecord]) -> float:
    return max(record.run.learning_rate or 0.0 for record in records if record.run.kind == "layer")
