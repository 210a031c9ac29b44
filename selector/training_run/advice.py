"""The suggestion that a training run follows: given, kept from an earlier start, or new."""

from __future__ import annotations

from pathlib import Path

from layerpick.selector.prepare import ModelChoice, RolloutChoice
from layerpick.selector.progress import Reporter
from layerpick.selector.suggestion.result import Suggestion, read_suggestion
from layerpick.selector.suggestion.run import suggest
from layerpick.selector.training_run.options import TrainingChoice
from layerpick.training.errors import LayerpickError
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.tasks.base import TaskSettings
from layerpick.training.tasks.forms import in_words

SUGGESTION_FILE = "suggestion.json"


def find_suggestion(
    given: Path | None,
    out: Path,
    model: ModelChoice,
    task: str,
    settings: TaskSettings,
    choice: TrainingChoice,
    rollouts: RolloutChoice,
    reporter: Reporter,
) -> Suggestion:
    """The suggestion in a file, or that of an earlier start in `out`, or a new one, kept there."""
    if given is not None:
        return read_suggestion(given)
    kept = out / SUGGESTION_FILE
    if kept.is_file():
        return read_suggestion(kept)
    suggestion = suggest(
        model,
        task,
        settings=settings,
        algorithm=choice.algorithm,
        rollouts=rollouts,
        seed=choice.seed,
        reporter=reporter,
    )
    suggestion.save(kept)
    return suggestion


def check_suggestion(suggestion: Suggestion, bench: Bench) -> None:
    """Raise LayerpickError when a suggestion is about something else than this bench."""
    wanted = {
        "weights": (suggestion.model.weights_hash, bench.model.identity.weights_hash),
        "task": (suggestion.task.name, bench.task.name),
        "data": (suggestion.task.data_hash, bench.task.fingerprint()),
        "algorithm": (suggestion.task.algorithm, bench.algorithm.name),
    }
    if suggestion.task.prompt_form:  # older suggestions do not say
        form = in_words(bench.task.settings)
        wanted["prompts"] = (suggestion.task.prompt_form, form)
    for what, (suggested, trained) in wanted.items():
        if suggested != trained:
            raise LayerpickError(
                f"The suggestion is about other {what} ({suggested:.40}, not {trained:.40}): make "
                f"one for what is trained, or leave --suggestion out."
            )
