"""From a model, a task and a layer to a trained and scored run in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from layerpick.selector.prepare import Prepared
from layerpick.selector.progress import Reporter
from layerpick.selector.settings import HeldOutChoice, RlSettings
from layerpick.selector.suggestion import summaries
from layerpick.selector.training_run.settings import TrainingChoice
from layerpick.selector.training_run.strategy import Strategy
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.engine.loop import step_seed
from layerpick.training.engine.policies import BASE_STREAM, FIRST_LAYER_STREAM, FULL_STREAM
from layerpick.training.episodes.scoring import held_out, score_model
from layerpick.training.errors import LayerpickError
from layerpick.training.models.defaults import read_defaults
from layerpick.training.processes import Processes, processes
from layerpick.training.runs.folder import PolicyScore, RunFolder, RunResult
from layerpick.training.sweeps.multiplexed import (
    SCORING_STEP,
    Bench,
    device_name,
    model_label,
)
from layerpick.training.sweeps.sweep import usual_rate
from layerpick.training.trl.options import parse_trl_options
from layerpick.training.trl.run import TrlSettings, train


@dataclass(frozen=True)
class Trained:
    """A finished run and where it lies."""

    folder: RunFolder
    result: RunResult
    strategy: Strategy


def make_bench(
    prepared: Prepared,
    algorithm: str | None,
    rl: RlSettings,
    heldout: HeldOutChoice,
    learning_rate: float | None = None,
) -> Bench:
    """Everything that base, single-layer and full runs share.

    Raises LayerpickError when the task has too few held-out prompts, or nothing could be learned.
    """
    model, task = prepared.model, prepared.task
    if learning_rate == 0:
        raise LayerpickError("--learning-rate must be above 0.")
    return Bench(
        model=model,
        task=task,
        algorithm=make_algorithm(algorithm or task.default_algorithm),
        sampling=prepared.sampling,
        settings=rl,
        heldout=held_out(task, heldout.heldout_prompts, heldout.heldout_samples),
        learning_rates=(learning_rate or default_rate(prepared),),
    )


def default_rate(prepared: Prepared) -> float:
    """The rate that the model's folder names, or the middle one of those for its size."""
    own = read_defaults(prepared.model.folder, prepared.task.name).learning_rate
    return own or usual_rate(sum(p.numel() for p in prepared.model.model.parameters()))


def run_training(
    bench: Bench,
    strategy: Strategy,
    choice: TrainingChoice,
    seed: int,
    out: Path,
    reporter: Reporter,
) -> Trained:
    """Score, train, score again; goes on where a run of these settings was killed.

    Trains the bench's model in place. Raises LayerpickError for whatever the user can mend.
    """
    settings = TrlSettings(
        layers=strategy.layers,
        boost=strategy.boost,
        learning_rate=bench.learning_rates[0],
        seed=seed,
        micro_batch=choice.micro_batch,
        gradient_checkpointing=choice.gradient_checkpointing,
        checkpoint_every=choice.checkpoint_every,
        vllm=choice.vllm,
        report_to=tuple(choice.report_to),
        trl=parse_trl_options(choice.trl),
    )
    group = processes()
    folder = RunFolder(out, group)
    folder.open(settings.describe(bench))
    done = folder.result()
    if done is not None:
        reporter.note(f"{out} is finished; nothing is trained again.")
        return Trained(folder, done, strategy)
    base = _score(bench, BASE_STREAM, seed, group)
    progress = reporter.stage(f"training {strategy.in_words}", bench.settings.steps)
    cost = train(bench, settings, folder, on_step=progress, note=reporter.note)
    layers = strategy.layers
    stream = FULL_STREAM if layers is None else FIRST_LAYER_STREAM + layers[0]
    result = RunResult(
        cost=cost,
        base=base,
        trained=_score(bench, stream, seed, group),
        full_parameters=sum(parameter.numel() for parameter in bench.model.model.parameters()),
        device=device_name(bench.model.device),
        versions=summaries.versions(),
        chosen=strategy.chosen,
    )
    folder.finish(result)
    return Trained(folder, result, strategy)


def default_out(bench: Bench, what: str, seed: int) -> Path:
    """Where a run goes unless told otherwise; the same command finds it again."""
    label = model_label(bench.model.identity).replace("/", "--")
    return Path("runs") / label / f"{bench.task.name}-{bench.algorithm.name}" / f"{what}-seed{seed}"


def _score(bench: Bench, stream: int, seed: int, group: Processes) -> PolicyScore:
    noise = step_seed(seed, SCORING_STEP)
    score = score_model(
        bench.model, bench.task, bench.sampling, bench.heldout, noise, stream, group
    )
    return PolicyScore.of(score)
