"""Suggest, train the best layer, score it, verify: the whole way in one go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from layerpick.selector.prepare import prepare
from layerpick.selector.progress import Reporter, Silent
from layerpick.selector.race.racing import race_layers
from layerpick.selector.race.settings import RaceChoice
from layerpick.selector.settings import (
    TRAINING_SAMPLING,
    HeldOutChoice,
    ModelChoice,
    RlSettings,
    SamplingChoice,
)
from layerpick.selector.suggestion.result import Suggestion
from layerpick.selector.training_run.advice import find_suggestion
from layerpick.selector.training_run.run import (
    TrainedRun,
    check_options,
    default_out,
    make_bench,
    run_training,
    winner_of,
)
from layerpick.selector.training_run.settings import RACE, StrategyChoice, TrainingChoice
from layerpick.selector.training_run.strategy import FULL, choose_strategy, folder_name
from layerpick.selector.verification import run as verifying
from layerpick.selector.verification.find import find_reading
from layerpick.selector.verification.report import gain_in_words
from layerpick.selector.verification.result import Verification
from layerpick.training.errors import LayerpickError
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.tasks.settings import TaskSettings


@dataclass(frozen=True)
class Outcome:
    """What came of it all."""

    place: Path
    suggestion: Suggestion | None
    """None where no prediction was asked for."""
    picked: TrainedRun
    full: TrainedRun | None
    verification: Verification

    @property
    def headline(self) -> str:
        """Which layer, how much of the full gain, at what share of the cost."""
        result, strategy = self.picked.result, self.picked.strategy
        trained = strategy.in_words
        if strategy.layers is not None:
            count = self.picked.folder.description().settings.layers
            together = "alone" if len(strategy.layers) == 1 else "together"
            trained = f"{trained} of {count} {together}"
        parameters = result.cost.trainable_parameters / result.full_parameters
        cost = f"{parameters:.0%} of the parameters"
        if self.full is not None:
            spent = [run.result.cost.update_seconds for run in (self.picked, self.full)]
            cost = f"{spent[0] / spent[1]:.0%} of the update time and {cost}"
        verdict = self.verification.pick
        scores = f"{result.base.mean:.2f} → {result.trained.mean:.2f}"
        if verdict.measured is None:
            return f"Training {trained} took the score from {scores}, with {cost} trained."
        error = "" if verdict.error is None else f" ± {verdict.error:.0%}"
        return (
            f"Training {trained} recovered {verdict.measured:.0%}{error} of "
            f"{gain_in_words(self.verification)} ({scores}) at {cost}."
        )


def auto(
    model: ModelChoice | str | None = None,
    task: str = "math",
    *,
    layer: StrategyChoice | str = "auto",
    settings: TaskSettings | None = None,
    algorithm: str | None = None,
    sampling: SamplingChoice = TRAINING_SAMPLING,
    rl: RlSettings | None = None,
    heldout: HeldOutChoice | None = None,
    choice: TrainingChoice | None = None,
    racing: RaceChoice | None = None,
    seed: int = 0,
    with_full: bool = False,
    sweeps: Path = Path("sweeps"),
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> Outcome:
    """Suggest a layer, train it, score it, and compare with what is measured.

    With `layer="race"` several are trained side by side, as `racing` says, and the winner is kept.
    Goes on where an earlier start was killed. Raises LayerpickError for what the user can mend.
    """
    model = model if isinstance(model, ModelChoice) else ModelChoice(model)
    strategy = layer if isinstance(layer, StrategyChoice) else StrategyChoice(layer)
    settings, rl = settings or TaskSettings(), rl or RlSettings()
    heldout = heldout or HeldOutChoice()
    choice, reporter = choice or TrainingChoice(), reporter or Silent()
    racing = racing or RaceChoice()
    # Nothing wrong should wait for the model.
    choice = check_options(strategy, choice, racing, rl.steps)

    def load() -> Bench:
        prepared = prepare(model, task, settings, sampling)
        return make_bench(prepared, algorithm, rl, heldout, choice.learning_rate)

    bench = load()
    name = folder_name(strategy)
    place = out or default_out(bench, "auto" if name == "auto" else f"auto-{name}", seed)
    suggestions: list[Suggestion] = []

    def advise() -> Suggestion:
        suggestions.append(
            find_suggestion(
                bench,
                None,
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
        )
        return suggestions[0]

    if strategy.layer == RACE:
        raced = race_layers(bench, advise(), racing, choice, seed, place / RACE, sweeps, reporter)
        picked = winner_of(raced)
    else:
        chosen = choose_strategy(strategy, bench, advise)
        if chosen == FULL:
            raise LayerpickError(
                "--layer all is what --with-full compares with: use `layerpick train`."
            )
        reporter.note(f"Training {chosen.in_words} ({chosen.chosen}).")
        picked = run_training(bench, chosen, choice, seed, place / "layer", reporter)
    suggestion = suggestions[0] if suggestions else None
    full = None
    if with_full:
        # The bench's model has been trained by now.
        full = run_training(load(), FULL, choice, seed, place / "full", reporter)
    verification = _verify(picked, full, suggestion, sweeps, reporter.note)
    return Outcome(place, suggestion, picked, full, verification)


def _verify(
    picked: TrainedRun,
    full: TrainedRun | None,
    suggestion: Suggestion | None,
    sweeps: Path,
    note: Callable[[str], None],
) -> Verification:
    """Against the full run if there is one, else a stored sweep, else the base score alone."""
    if full is not None:
        return verifying.verify_pair(picked.folder, suggestion, full.folder)
    try:
        reading = find_reading(sweeps, *picked.folder.description().settings.about)
    except LayerpickError as error:
        note(f"The sweep is not used: {error}")
        reading = None
    if reading is None:
        return verifying.verify_pair(picked.folder, suggestion, None)
    return verifying.verify_run(picked.folder, suggestion, reading)
