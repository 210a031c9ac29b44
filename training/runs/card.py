"""The model card of a merged model in the Hub's form: results as `model-index`, how it was made.

Results are the run's own scores on held-out prompts; a delta without its run's folder has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from layerpick.training.errors import LayerpickError
from layerpick.training.runs.folder import PolicyScore, RunDescription, RunFolder, RunResult
from layerpick.training.tasks.table import TASK_INFOS

if TYPE_CHECKING:
    from layerpick.training.runs.delta import DeltaOrigin

METRIC = "mean reward"


def model_card(origin: DeltaOrigin, run: Path) -> str:
    """Front matter and text for what a run, or its delta file, was merged into."""
    description, result = _run(run)
    return "\n".join(
        [
            "---",
            _front_matter(origin, description, result),
            "---",
            "",
            f"# {_name(origin)}, {origin.trained} trained with RL",
            "",
            _summary(origin, result),
            "",
            *_facts(origin, description, result),
            *_scores(result),
            "",
            "The base model's licence and limits hold for this model too.",
            "",
        ]
    )


def _run(run: Path) -> tuple[RunDescription | None, RunResult | None]:
    folder = RunFolder(run if run.is_dir() else run.parent)
    try:
        return folder.description(), folder.result()
    except LayerpickError:
        return None, None


def _front_matter(
    origin: DeltaOrigin, description: RunDescription | None, result: RunResult | None
) -> str:
    """YAML that the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    if result is not None:
        results = [
            EvalResult(
                task_type="text-generation",
                dataset_type=_hub_dataset(origin.source) or "other",
                dataset_name=Path(origin.source).name,
                dataset_split="held out by layerpick",
                metric_type="reward",
                metric_name=f"{METRIC} ({name})",
                metric_value=round(score.mean, 4),
                metric_args={"standard_error": round(score.error, 4)},
                verified=False,
            )
            for name, score in (("this model", result.trained), ("base model", result.base))
        ]
    data = ModelCardData(
        base_model=_hub_model(origin.base_model),
        datasets=_hub_dataset(origin.source),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["layerpick", "reinforcement-learning", "trl", origin.algorithm],
        model_name=f"{_name(origin)}-layerpick" if results else None,
        eval_results=results or None,
        seed=description.seed if description else origin.seed,
    )
    return data.to_yaml().strip()


def _summary(origin: DeltaOrigin, result: RunResult | None) -> str:
    revision = f" (revision {origin.revision})" if origin.revision else ""
    text = (
        f"{_name(origin)}{revision} after {origin.steps} steps of {origin.algorithm} on the task "
        f"`{origin.task}` ({Path(origin.source).name}), with {origin.trained} trained"
        f"{'' if origin.layers is None else ' and all else frozen'}."
    )
    if result is None:
        return text
    share = result.cost.trainable_parameters / result.full_parameters
    return f"{text} That is {result.cost.trainable_parameters:,} parameters ({share:.1%})."


def _facts(
    origin: DeltaOrigin, description: RunDescription | None, result: RunResult | None
) -> list[str]:
    versions = ", ".join(f"{package} {number}" for package, number in origin.versions.items())
    judged = next((info.about for info in TASK_INFOS if info.name == origin.task), origin.task)
    values = {
        "Trained": origin.trained,
        "Chosen": result.chosen if result else None,
        "Base weights (SHA-256 of the files)": f"`{origin.weights_hash}`",
        "Base revision": f"`{origin.revision}`" if origin.revision else None,
        "Data": Path(origin.source).name if Path(origin.source).exists() else origin.source,
        "Reward": (result.reward if result else None) or judged,
        "Learning rate": f"{origin.learning_rate:g}",
        "Seed": str(origin.seed),
        "Made with": versions,
    }
    if description is not None:
        settings = description.settings
        values["Each step"] = (
            f"{settings.prompts} prompts of {settings.group_size} completions of at most "
            f"{settings.max_new_tokens} tokens, temperature {settings.temperature:g}, "
            f"β = {settings.beta:g}, ε = {settings.epsilon:g}"
        )
        values["Prompts"] = settings.prompt_form
    return [f"- {name}: {value}" for name, value in values.items() if value]


def _scores(result: RunResult | None) -> list[str]:
    if result is None:
        return []
    return [
        "",
        f"| on {len(result.base.by_prompt)} held-out prompts | {METRIC} | standard error |",
        "|---|---|---|",
        _row("base model", result.base),
        _row("this model", result.trained),
    ]


def _row(name: str, score: PolicyScore) -> str:
    return f"| {name} | {score.mean:.4f} | {score.error:.4f} |"


def _name(origin: DeltaOrigin) -> str:
    return _hub_model(origin.base_model) or Path(origin.base_model).name


def _hub_model(name: str) -> str | None:
    """The model's name, if it is one on the Hub."""
    is_local = Path(name).exists() or name.startswith((".", "/", "~")) or name.endswith(".gguf")
    return None if is_local or name.count("/") > 1 else name


def _hub_dataset(name: str) -> str | None:
    """The data set's name, if it is one on the Hub."""
    is_other = Path(name).exists() or name.startswith((".", "/", "~")) or set(name) & set(":?")
    return name if name.count("/") == 1 and not is_other else None
