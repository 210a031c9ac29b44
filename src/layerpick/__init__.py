"""layerpick: which single decoder layer of a language model should reinforcement learning train?

Almost every command is a function here, with the same name:

    import layerpick

    suggestion = layerpick.suggest("Qwen/Qwen3-4B", "math")
    suggestion.save("suggestion.json")
    run = layerpick.train("Qwen/Qwen3-4B", "math", suggestion="suggestion.json")

Everything is imported on first use, so that importing layerpick takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerpick.calibration.predictors.regressors import Regressor
    from layerpick.calibration.sweeps.values import Sweep
    from layerpick.probes.base import Probe
    from layerpick.selector.auto.run import Outcome, auto
    from layerpick.selector.comparison.run import Comparison, compare
    from layerpick.selector.evaluation.run import Evaluated, evaluate
    from layerpick.selector.export.run import Exported, export
    from layerpick.selector.race.racing import RaceOutcome
    from layerpick.selector.race.run import race
    from layerpick.selector.race.settings import RaceChoice
    from layerpick.selector.recalibration.run import Calibrated, calibrate
    from layerpick.selector.rollouts.run import ShownRollouts, rollouts
    from layerpick.selector.settings import (
        HeldOutChoice,
        ModelChoice,
        RolloutChoice,
        SamplingChoice,
    )
    from layerpick.selector.suggestion.result import Suggestion, read_suggestion
    from layerpick.selector.suggestion.run import suggest
    from layerpick.selector.sweep.run import sweep
    from layerpick.selector.sweep.settings import ClusterChoice, SweepChoice
    from layerpick.selector.training_run.run import TrainedRun, train
    from layerpick.selector.training_run.settings import (
        PaceChoice,
        StrategyChoice,
        TrainingChoice,
    )
    from layerpick.selector.verification.result import Verification
    from layerpick.selector.verification.verify import verify
    from layerpick.selector.voting.result import Vote
    from layerpick.selector.voting.run import vote
    from layerpick.training.algorithms.base import Algorithm
    from layerpick.training.environments.base import TextWorld
    from layerpick.training.errors import LayerpickError, NoSignalError
    from layerpick.training.runs.delta import apply, load_with_delta
    from layerpick.training.settings import RlSettings
    from layerpick.training.tasks.base import Task
    from layerpick.training.tasks.settings import TaskSettings

    __version__: str

_HOMES = {
    "Algorithm": "training.algorithms.base",
    "Calibrated": "selector.recalibration.run",
    "ClusterChoice": "selector.sweep.settings",
    "Comparison": "selector.comparison.run",
    "Evaluated": "selector.evaluation.run",
    "Exported": "selector.export.run",
    "HeldOutChoice": "selector.settings",
    "LayerpickError": "training.errors",
    "ModelChoice": "selector.settings",
    "NoSignalError": "training.errors",
    "Outcome": "selector.auto.run",
    "PaceChoice": "selector.training_run.settings",
    "Probe": "probes.base",
    "RaceChoice": "selector.race.settings",
    "RaceOutcome": "selector.race.racing",
    "Regressor": "calibration.predictors.regressors",
    "RlSettings": "training.settings",
    "RolloutChoice": "selector.settings",
    "SamplingChoice": "selector.settings",
    "ShownRollouts": "selector.rollouts.run",
    "StrategyChoice": "selector.training_run.settings",
    "Suggestion": "selector.suggestion.result",
    "Sweep": "calibration.sweeps.values",
    "SweepChoice": "selector.sweep.settings",
    "Task": "training.tasks.base",
    "TaskSettings": "training.tasks.settings",
    "TextWorld": "training.environments.base",
    "TrainedRun": "selector.training_run.run",
    "TrainingChoice": "selector.training_run.settings",
    "Vote": "selector.voting.result",
    "Verification": "selector.verification.result",
    "apply": "training.runs.delta",
    "auto": "selector.auto.run",
    "calibrate": "selector.recalibration.run",
    "compare": "selector.comparison.run",
    "evaluate": "selector.evaluation.run",
    "export": "selector.export.run",
    "load_with_delta": "training.runs.delta",
    "race": "selector.race.run",
    "read_suggestion": "selector.suggestion.result",
    "rollouts": "selector.rollouts.run",
    "suggest": "selector.suggestion.run",
    "sweep": "selector.sweep.run",
    "train": "selector.training_run.run",
    "vote": "selector.voting.run",
    "verify": "selector.verification.verify",
}

__all__ = [
    "Algorithm",
    "Calibrated",
    "ClusterChoice",
    "Comparison",
    "Evaluated",
    "Exported",
    "HeldOutChoice",
    "LayerpickError",
    "ModelChoice",
    "NoSignalError",
    "Outcome",
    "PaceChoice",
    "Probe",
    "RaceChoice",
    "RaceOutcome",
    "Regressor",
    "RlSettings",
    "RolloutChoice",
    "SamplingChoice",
    "ShownRollouts",
    "StrategyChoice",
    "Suggestion",
    "Sweep",
    "SweepChoice",
    "Task",
    "TaskSettings",
    "TextWorld",
    "TrainedRun",
    "TrainingChoice",
    "Verification",
    "Vote",
    "__version__",
    "apply",
    "auto",
    "calibrate",
    "compare",
    "evaluate",
    "export",
    "load_with_delta",
    "race",
    "read_suggestion",
    "rollouts",
    "suggest",
    "sweep",
    "train",
    "verify",
    "vote",
]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("layerpick")
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
