"""A training run in a few sentences."""

from __future__ import annotations

from rich.markup import escape

from layerpick.selector.training_run.run import TrainedRun
from layerpick.training.runs.folder import PolicyScore


def sentences(trained: TrainedRun) -> list[str]:
    """What was trained, what it took, what it gained."""
    result, cost = trained.result, trained.result.cost
    share = cost.trainable_parameters / result.full_parameters
    steps = max(cost.steps, 1)
    gain = result.trained.mean - result.base.mean
    error = gain_error(result.base, result.trained)
    return [
        f"[bold]Trained {trained.strategy.in_words}[/bold]: {cost.trainable_parameters:,} of "
        f"{result.full_parameters:,} parameters ({share:.1%}), optimizer state "
        f"{cost.optimizer_bytes / 1e6:.3g} MB.",
        f"{cost.steps} steps of {(cost.sampling_seconds + cost.update_seconds) / steps:.2f} s: "
        f"{cost.sampling_seconds / steps:.2f} s sampling, {cost.update_seconds / steps:.2f} s "
        f"update.",
        f"Score on {len(result.base.by_prompt)} held-out prompts: {score(result.base)} before, "
        f"{score(result.trained)} after ({gain:+.3f} ± {error:.3f}).",
        *_completions(trained),
    ]


def _completions(trained: TrainedRun) -> list[str]:
    """How the model was asked, and how often its answers were cut off."""
    settings, result = trained.folder.description().settings, trained.result
    lines = []
    if settings.prompt_form:
        lines.append(f"Prompts: {escape(settings.prompt_form)}.")
    if result.base.cut is not None and result.trained.cut is not None:
        lines.append(
            f"Completions cut off at {settings.max_new_tokens:,} tokens: {result.base.cut:.0%} "
            f"before, {result.trained.cut:.0%} after."
        )
    return lines


def score(value: PolicyScore) -> str:
    """Mean ± standard error."""
    return f"{value.mean:.3f} ± {value.error:.3f}"


def gain_error(base: PolicyScore, trained: PolicyScore) -> float:
    """Standard error of the difference, paired by prompt."""
    import numpy as np

    differences = np.array(trained.by_prompt) - np.array(base.by_prompt)
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))
