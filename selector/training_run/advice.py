"""The suggestion that a training run follows: given, kept from an earlier start, or new."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from layerpick.selector.progress import Reporter
from layerpick.selector.settings import (
    USUAL_PROMPTS,
    ModelChoice,
    RlSettings,
    RolloutChoice,
    SamplingChoice,
)
from layerpick.selector.suggestion.result import Suggestion, read_suggestion
from layerpick.selector.suggestion.run import suggest
from layerpick.selector.training_run.strategy import Strategy
from layerpick.training.errors import LayerpickError
from layerpick.training.processes import processes
from layerpick.training.sweeps.multiplexed import Bench
from layerpick.training.tasks.forms import in_words
from layerpick.training.tasks.settings import TaskSettings

SUGGESTION_FILE = "suggestion.json"


def find_suggestion(
    bench: Bench,
    given: Path | None,
    out: Path,
    model: ModelChoice,
    task: str,
    *,
    settings: TaskSettings,
    algorithm: str | None,
    sampling: SamplingChoice,
    rl: RlSettings,
    seed: int,
    reporter: Reporter,
) -> Suggestion:
    """The suggestion in a file, or that of an earlier start in `out`, or a new one, kept there.

    Of several processes one makes it. Raises LayerpickError for one that is not about the bench.
    """
    kept = out / SUGGESTION_FILE
    with processes().first_alone():
        if given is not None:
            suggestion = read_suggestion(given)
        elif kept.is_file():
            suggestion = read_suggestion(kept)
        else:
            suggestion = suggest(
                model,
                task,
                settings=settings,
                algorithm=algorithm,
                sampling=sampling,
                rollouts=RolloutChoice(max(rl.prompts, USUAL_PROMPTS), rl.group_size),
                seed=seed,
                reporter=reporter,
            )
            suggestion.save(kept)
    remedy = (
        "make one for what is trained, or leave --suggestion out"
        if given is not None
        else f"use another --out, or delete {kept}"
    )
    check_suggestion(suggestion, bench, remedy)
    return suggestion


def at_advised_rate(
    bench: Bench, advice: Strategy | Suggestion | None, asked: float | None
) -> Bench:
    """The bench at the learning rate advised for what trains, unless another was asked for."""
    if advice is None or advice.learning_rate is None or asked is not None:
        return bench
    return replace(bench, learning_rates=(advice.learning_rate,))


def check_suggestion(suggestion: Suggestion, bench: Bench, remedy: str) -> None:
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
                f"The suggestion is about other {what} ({suggested:.40}, not {trained:.40}): "
                f"{remedy}."
            )
