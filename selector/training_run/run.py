"""From a model, a task and a layer to a trained and scored run in its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from layerpick.selector.prepare import Prepared, default_rate, prepare
from layerpick.selector.progress import Reporter, Silent
from layerpick.selector.race.racing import RaceOutcome, check_race, race_layers
from layerpick.selector.race.settings import RaceChoice
from layerpick.selector.settings import (
    TRAINING_SAMPLING,
    HeldOutChoice,
    ModelChoice,
    RlSettings,
    SamplingChoice,
    TaskSettings,
)
from layerpick.selector.suggestion import summaries
from layerpick.selector.suggestion.result import Suggestion
from layerpick.selector.training_run.advice import at_advised_rate, find_suggestion
from layerpick.selector.training_run.engines import check_engine, engine_of
from layerpick.selector.training_run.settings import RACE, StrategyChoice, TrainingChoice
from layerpick.selector.training_run.strategy import (
    Strategy,
    check_choice,
    choose_strategy,
    folder_name,
)
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.engine.loop import step_seed
from layerpick.training.engine.policies import BASE_STREAM, FIRST_LAYER_STREAM, FULL_STREAM
from layerpick.training.episodes.scoring import held_out, score_model
from layerpick.training.episodes.trajectory import MANY_CUT
from layerpick.training.errors import LayerpickError
from layerpick.training.processes import Processes, join, processes
from layerpick.training.runs.delta import whole_checksum
from layerpick.training.runs.folder import (
    PolicyScore,
    RunDescription,
    RunFolder,
    RunResult,
    TrainingCost,
)
from layerpick.training.sweeps.multiplexed import (
    SCORING_STEP,
    Bench,
    device_name,
    model_label,
)


@dataclass(frozen=True)
class TrainedRun:
    """A finished run and where it lies."""

    folder: RunFolder
    result: RunResult
    strategy: Strategy
    race: RaceOutcome | None = None
    """The race that it won, if any."""


def train(
    model: ModelChoice | str | None = None,
    task: str = "math",
    *,
    layer: StrategyChoice | str = "auto",
    suggestion: Path | str | None = None,
    settings: TaskSettings | None = None,
    algorithm: str | None = None,
    sampling: SamplingChoice = TRAINING_SAMPLING,
    rl: RlSettings | None = None,
    heldout: HeldOutChoice | None = None,
    choice: TrainingChoice | None = None,
    racing: RaceChoice | None = None,
    seed: int = 0,
    sweeps: Path = Path("sweeps"),
    out: Path | str | None = None,
    reporter: Reporter | None = None,
) -> TrainedRun:
    """Train exactly the named decoder layers with RL, everything else frozen; score before, after.

    `layer` is what `--layer` takes: `auto` (that of `suggestion`, a file, or of a new one), `race`
    (as `racing` says; finalists are recorded below `sweeps`), numbers as `3,4`, `top:3`, `all`; or
    a whole `StrategyChoice`. The same call goes on with a run that was killed. Raises
    LayerpickError for whatever the user can mend.
    """
    model = model if isinstance(model, ModelChoice) else ModelChoice(model)
    strategy = layer if isinstance(layer, StrategyChoice) else StrategyChoice(layer)
    settings, rl = settings or TaskSettings(), rl or RlSettings()
    choice, reporter = choice or TrainingChoice(), reporter or Silent()
    racing = racing or RaceChoice()
    # Nothing wrong should wait for the model.
    choice = check_options(strategy, choice, racing, rl.steps)
    join(model.device)
    prepared = prepare(model, task, settings, sampling)
    bench = make_bench(prepared, algorithm, rl, heldout or HeldOutChoice(), choice.learning_rate)
    place = Path(out) if out else default_out(bench, folder_name(strategy), seed)

    def advise() -> Suggestion:
        return find_suggestion(
            bench,
            Path(suggestion) if suggestion else None,
            place,
            model,
            task,
            settings=settings,
            algorithm=algorithm,
            sampling=sampling,
            rl=rl,
            seed=seed,
            reporter=reporter,
        )

    if strategy.layer == RACE:
        raced = race_layers(bench, advise(), racing, choice, seed, place, sweeps, reporter)
        return winner_of(raced)
    chosen = choose_strategy(strategy, bench, advise)
    reporter.note(f"Training {chosen.in_words} ({chosen.chosen}).")
    return run_training(bench, chosen, choice, seed, place, reporter)


def check_options(
    strategy: StrategyChoice, choice: TrainingChoice, racing: RaceChoice, steps: int
) -> TrainingChoice:
    """The training options as they hold: a race trains with this package's own engine.

    Raises LayerpickError for options that contradict each other.
    """
    check_choice(strategy)
    if strategy.layer == RACE:
        check_race(racing, choice.learning_rate, steps)
        choice = replace(choice, engine="own")
    elif racing != RaceChoice():
        raise LayerpickError("--race-budget, --arms and --race-rates belong to --layer race.")
    check_engine(choice, strategy.boost is not None)
    return choice


def winner_of(raced: RaceOutcome) -> TrainedRun:
    """The winner of a race as the run that it is."""
    result = raced.winner.result()
    assert result is not None
    strategy = Strategy((raced.result.winner,), None, result.chosen or RACE)
    return TrainedRun(raced.winner, result, strategy, raced)


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


def run_training(
    bench: Bench,
    strategy: Strategy,
    choice: TrainingChoice,
    seed: int,
    out: Path,
    reporter: Reporter,
) -> TrainedRun:
    """Score, train, score again; goes on where a run of these settings was killed.

    Trains the bench's model in place. Raises LayerpickError for whatever the user can mend.
    """
    bench = at_advised_rate(bench, strategy, choice.learning_rate)
    description, train_in = engine_of(choice, bench, strategy.layers, strategy.boost, seed)
    group = processes()
    folder = RunFolder(out, group)
    with folder.held():
        result = _result(bench, description, train_in, strategy, folder, seed, reporter)
    return TrainedRun(folder, result, strategy)


def _result(
    bench: Bench,
    description: RunDescription,
    train_in: Callable[..., TrainingCost],
    strategy: Strategy,
    folder: RunFolder,
    seed: int,
    reporter: Reporter,
) -> RunResult:
    """The run's result: the one that is there, if its trained layer is too, or a new one."""
    group = processes()
    folder.open(description)
    done = folder.result()
    if done is not None:
        found = whole_checksum(folder.path)
        if found is not None and done.delta in (None, found):
            reporter.note(f"{folder.path} is finished; nothing is trained again.")
            return done
        reporter.note(f"{folder.path} has lost its trained layer, or it was damaged: trained anew.")
        folder.forget()
    base = _score(bench, BASE_STREAM, seed, group, "scoring the base model", reporter)
    if base.cut is not None and base.cut > MANY_CUT:
        reporter.note(
            f"Warning: {base.cut:.0%} of the model's completions are cut off at "
            f"{bench.sampling.max_new_tokens:,} tokens: give a larger --max-new-tokens."
        )
    progress = reporter.stage(f"training {strategy.in_words}", bench.settings.steps)
    cost = train_in(folder, on_step=progress, note=reporter.note)
    layers = strategy.layers
    stream = FULL_STREAM if layers is None else FIRST_LAYER_STREAM + layers[0]
    result = RunResult(
        cost=cost,
        base=base,
        trained=_score(bench, stream, seed, group, "scoring what was trained", reporter),
        full_parameters=sum(parameter.numel() for parameter in bench.model.model.parameters()),
        device=device_name(bench.model.device),
        versions=summaries.versions(),
        chosen=strategy.chosen,
        reward=bench.task.settings.reward,
        run=description.identity,
        delta=whole_checksum(folder.path),
    )
    folder.finish(result)
    return result


def default_out(bench: Bench, what: str, seed: int) -> Path:
    """Where a run goes unless told otherwise; the same command finds it again."""
    label = model_label(bench.model.identity).replace("/", "--")
    return Path("runs") / label / f"{bench.task.name}-{bench.algorithm.name}" / f"{what}-seed{seed}"


def _score(
    bench: Bench, stream: int, seed: int, group: Processes, name: str, reporter: Reporter
) -> PolicyScore:
    noise, on = step_seed(seed, SCORING_STEP), bench.heldout
    score = score_model(
        bench.model, bench.task, bench.sampling, on, noise, stream, group, reporter, name
    )
    return PolicyScore.of(score)
