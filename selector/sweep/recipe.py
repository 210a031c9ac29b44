"""What it takes to make a sweep's bench, as plain values: here, or on a worker of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from layerpick.selector.prepare import prepare
from layerpick.selector.progress import Reporter
from layerpick.selector.settings import HeldOutChoice, ModelChoice, RlSettings, SamplingChoice
from layerpick.selector.sweep.settings import ClusterChoice, SweepChoice
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.episodes.scoring import held_out
from layerpick.training.models.rates import default_rates
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.sweeps.passes import (
    LocalPasses,
    Passes,
    SweepFacts,
    engine_of,
    facts_of,
    policies_in_pass,
)
from layerpick.training.sweeps.records import Rates
from layerpick.training.tasks.settings import TaskSettings


@dataclass(frozen=True)
class BenchRecipe:
    """All that a person chose about what the runs of a sweep share."""

    model: ModelChoice
    task: str
    settings: TaskSettings
    algorithm: str | None
    sampling: SamplingChoice
    rl: RlSettings
    heldout: HeldOutChoice
    choice: SweepChoice

    @property
    def files(self) -> tuple[Path, ...]:
        """The model, the data set and the reward, those of them that are local files."""
        reward, _, _ = (self.settings.reward or "").rpartition(":")
        named = (self.model.model, self.settings.dataset, reward)
        return tuple(Path(name) for name in named if name and Path(name).exists())

    def make(self, places: Mapping[Path, Path], device: str | None) -> Bench:
        """Load the model and complete what was left open; `places` says where files are now.

        Raises LayerpickError for whatever the user can mend.
        """

        def place(name: str | None) -> str | None:
            return str(places.get(Path(name), name)) if name else name

        settings = replace(self.settings, dataset=place(self.settings.dataset))
        if settings.reward:
            file, _, function = settings.reward.rpartition(":")
            settings = replace(settings, reward=f"{place(file)}:{function}")
        model = replace(
            self.model, model=place(self.model.model), device=device or self.model.device
        )
        prepared = prepare(model, self.task, settings, self.sampling)
        task = prepared.task
        rates: Rates = "shared" if self.choice.shared_lr else "own"
        return Bench(
            model=prepared.model,
            task=task,
            algorithm=make_algorithm(self.algorithm or task.default_algorithm),
            sampling=prepared.sampling,
            settings=self.rl,
            heldout=held_out(task, self.heldout.heldout_prompts, self.heldout.heldout_samples),
            learning_rates=self.choice.learning_rates or default_rates(prepared.model, rates),
            rates=rates,
            told=replace(task.settings, reward=self.settings.reward),
        )


@contextmanager
def open_passes(
    recipe: BenchRecipe, cluster: ClusterChoice, reporter: Reporter
) -> Iterator[tuple[SweepFacts, Passes]]:
    """The place where passes are measured, and what a sweep must know of the bench there.

    On leaving the block, tasks that still run on a cluster are ended.
    """
    choice = recipe.choice
    measure = engine_of(choice.engine)
    if cluster.on is None:
        bench = recipe.make({}, None)
        facts = facts_of(bench, choice.engine)
        size = policies_in_pass(bench, choice.engine, choice.policies_per_pass)
        yield facts, LocalPasses(bench, size, measure, reporter)
        return
    from layerpick.training.sweeps.on_ray import RayPasses
    from layerpick.training.sweeps.ray_tasks import Needs, RayTasks

    gpus = 0.0 if recipe.model.device == "cpu" else cluster.gpus_per_pass
    needs = Needs(gpus, int(1e9 * (cluster.memory_per_pass or 0)))
    with RayTasks(cluster.on, needs, fresh_workers=choice.engine == "trl") as tasks:
        passes = RayPasses(tasks, recipe, choice.engine, choice.policies_per_pass, reporter)
        yield passes.facts, passes
