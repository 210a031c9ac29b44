"""The suggestion: the ranked layers of one model × task × algorithm, as a typed value and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerpick.training.errors import LayerpickError
from layerpick.training.files import write_text
from layerpick.training.sweeps.records import Rates

SCHEMA_VERSION = 1


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerSuggestion(_Value):
    """One layer."""

    layer: int
    depth: float = Field(description="0 at the input, 1 at the last layer")
    predicted: float = Field(description="predicted contribution")
    interval: tuple[float, float]
    chance_best: float
    measured: float | None = Field(description="measured contribution, where a sweep exists")
    features: dict[str, float]


class ModelSummary(_Value):
    """Which weights the suggestion is about."""

    id: str
    revision: str | None
    weights_hash: str
    layers: int
    parameters: int
    dtype: str
    device: str


class TaskSummary(_Value):
    """What the model was asked."""

    name: str
    algorithm: str
    source: str = Field(description="data set, generator or world")
    data_hash: str
    prompt_form: str = Field(default="", description="what stood around each row, in words")
    settings_hash: str | None = Field(
        default=None, description="of the form of the prompts, stop strings, reward and the like"
    )
    note: str | None = Field(default=None, description="what the form leaves out, if anything")


class RolloutSummary(_Value):
    """What the model answered."""

    prompts: int
    group_size: int
    groups_with_signal: int
    mean_reward: float
    reward_error: float = Field(description="standard error over prompts")
    tokens: int = Field(description="tokens written by the model")
    temperature: float
    max_new_tokens: int
    failures: int = Field(description="episodes that the environment broke off")
    cut: float | None = Field(default=None, description="share cut off at max_new_tokens")
    readable: float | None = Field(
        default=None, description="share with an answer that could be read"
    )


class ProbeSummary(_Value):
    """What one probe cost, and why it, or some of its features, are missing."""

    name: str
    seconds: float
    tokens: int
    peak_bytes: int
    sampled_tokens: int = Field(default=0, description="tokens written while it ran")
    failure: str | None = None


class Cost(_Value):
    """What the suggestion cost."""

    seconds: float
    load_seconds: float
    sampling_seconds: float
    sampled_tokens: int
    probe_tokens: int
    peak_bytes: int
    probes: tuple[ProbeSummary, ...]


class Savings(_Value):
    """What training the picked layer alone saves against full-parameter training.

    Bytes are those of float32 gradients and AdamW's two float32 moments: 12 per parameter.
    """

    trainable_parameters: int
    full_parameters: int
    training_bytes: int
    full_training_bytes: int


class Suggestion(_Value):
    """Which layer to train, how sure that is, and what it rests on."""

    schema_version: int = SCHEMA_VERSION
    pick: int
    basis: str
    rates: tuple[Rates, ...] = Field(
        default=(),
        description="what contributions are predicted: shared, all runs at one learning rate; "
        "own, each policy at its own best; both, where sweeps of both kinds were learned from",
    )
    stopped: str | None = Field(default=None, description="why a budget was not spent further")
    further: dict[str, float] = Field(
        default_factory=dict,
        description="levels that were not measured, and about how many seconds more they take",
    )
    measured_by: str | None = Field(description="whose measurement `measured` is")
    coverage: float = Field(description="share of measurements the intervals should hold")
    layers: tuple[LayerSuggestion, ...]
    model: ModelSummary
    task: TaskSummary
    rollouts: RolloutSummary
    cost: Cost
    savings: Savings
    seed: int
    versions: dict[str, str]

    @property
    def ranked(self) -> tuple[LayerSuggestion, ...]:
        """Layers from best to worst predicted contribution."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.predicted))

    @property
    def about(self) -> tuple[str, str, str, str]:
        """What a sweep of the same is found by: weights, task, algorithm and data."""
        task = self.task
        return self.model.weights_hash, task.name, task.algorithm, task.data_hash

    def to_json(self) -> str:
        """The suggestion as indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        write_text(path, self.to_json())


def read_suggestion(path: Path) -> Suggestion:
    """Read a `suggestion.json`. Raises LayerpickError for a file that is none."""
    if not path.is_file():
        raise LayerpickError(f"The suggestion {path} does not exist.")
    try:
        return Suggestion.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise LayerpickError(
            f"{path} is not a suggestion of schema version {SCHEMA_VERSION}: make it again with "
            f"`layerpick suggest`."
        ) from error
