"""From a model and a task to the best of several layers, trained."""

from __future__ import annotations

from pathlib import Path

from layerpick.selector.prepare import prepare
from layerpick.selector.progress import Reporter, Silent
from layerpick.selector.race.racing import RaceOutcome, check_race, race_layers
from layerpick.selector.race.settings import RaceChoice
from layerpick.selector.settings import (
    TRAINING_SAMPLING,
    HeldOutChoice,
    ModelChoice,
    RlSettings,
    SamplingChoice,
)
from layerpick.selector.training_run.advice import find_suggestion
from layerpick.selector.training_run.run import default_out, make_bench
from layerpick.selector.training_run.settings import RACE, PaceChoice
from layerpick.training.tasks.settings import TaskSettings


def race(
    model: ModelChoice | str | None = None,
    task: str = "math",
    *,
    suggestion: Path | str | None = None,
    settings: TaskSettings | None = None,
    algorithm: str | None = None,
    sampling: SamplingChoice = TRAINING_SAMPLING,
    rl: RlSettings | None = None,
    heldout: HeldOutChoice | None = None,
    racing: RaceChoice | None = None,
    choice: PaceChoice | None = None,
    seed: int = 0,
    sweeps: Path = Path("sweeps"),
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> RaceOutcome:
    """Suggest, race the layers that may be best, keep the winner's weights.

    `suggestion` is a file with one; it is made first if left out. Goes on where an earlier start
    was killed. Finalists are recorded as runs of a sweep below `sweeps`. Raises LayerpickError for
    whatever the user can mend.
    """
    model = model if isinstance(model, ModelChoice) else ModelChoice(model)
    settings, rl, choice = settings or TaskSettings(), rl or RlSettings(), choice or PaceChoice()
    racing, reporter = racing or RaceChoice(), reporter or Silent()
    check_race(racing, choice.learning_rate, rl.steps)  # nothing wrong should wait for the model
    prepared = prepare(model, task, settings, sampling)
    bench = make_bench(prepared, algorithm, rl, heldout or HeldOutChoice(), choice.learning_rate)
    place = out or default_out(bench, RACE, seed)
    advice = find_suggestion(
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
    return race_layers(bench, advice, racing, choice, seed, place, sweeps, reporter)
