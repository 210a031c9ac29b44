"""A training run in a few sentences."""

from __future__ import annotations

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
    ]


def score(value: PolicyScore) -> str:
    """Mean ± standard error."""
    return f"{value.mean:.3f} ± {value.error:.3f}"


def gain_error(base: PolicyScore, trained: PolicyScore) -> float:
    """Standard error of the difference, paired by prompt."""
    import numpy as np

    differences = np.array(trained.by_prompt) - np.array(base.by_prompt)
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))
