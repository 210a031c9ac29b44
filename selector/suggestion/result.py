"""The suggestion: the ranked layers of one model × task × algorithm, as a typed value and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from layerpick.training.errors import LayerpickError
from layerpick.training.files import write_text
from layerpick.training.reading import read_record
from layerpick.training.sweeps.records import Rates
from layerpick.training.values import (
    Count,
    Feature,
    Index,
    NonNegative,
    Number,
    Positive,
    Record,
    Share,
)

SCHEMA_VERSION: Literal[1] = 1


class LayerSuggestion(Record):
    """One layer."""

    layer: Index
    depth: Share = Field(description="0 at the input, 1 at the last layer")
    predicted: Number = Field(description="predicted contribution")
    interval: tuple[Number, Number]
    chance_best: Share
    measured: Number | None = Field(description="measured contribution, where a sweep exists")
    features: dict[str, Feature]


class ModelSummary(Record):
    """Which weights the suggestion is about."""

    id: str
    label: str = Field(default="", description="the id without its place on the machine")
    revision: str | None
    weights_hash: str
    layers: int = Field(ge=1)
    parameters: Count
    dtype: str
    device: str

    @property
    def name(self) -> str:
        """What it is called in words."""
        return self.label or Path(self.id).name


class TaskSummary(Record):
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


class RolloutSummary(Record):
    """What the model answered."""

    prompts: Count
    group_size: Count
    groups_with_signal: Count
    mean_reward: Number
    reward_error: NonNegative = Field(description="standard error over prompts")
    tokens: Count = Field(description="tokens written by the model")
    temperature: NonNegative
    max_new_tokens: Count
    failures: Count = Field(description="episodes that the environment broke off")
    cut: Share | None = Field(default=None, description="share cut off at max_new_tokens")
    readable: Share | None = Field(
        default=None, description="share with an answer that could be read"
    )


class ProbeSummary(Record):
    """What one probe cost, and why it, or some of its features, are missing."""

    name: str
    seconds: NonNegative
    tokens: Count
    peak_bytes: Count
    sampled_tokens: Count = Field(default=0, description="tokens written while it ran")
    failure: str | None = None


class Cost(Record):
    """What the suggestion cost."""

    seconds: NonNegative
    load_seconds: NonNegative
    sampling_seconds: NonNegative
    sampled_tokens: Count
    probe_tokens: Count
    peak_bytes: Count
    probes: tuple[ProbeSummary, ...]


class Savings(Record):
    """What training the picked layer alone saves against full-parameter training.

    Bytes are those of float32 gradients and AdamW's two float32 moments: 12 per parameter.
    """

    trainable_parameters: Count
    full_parameters: Count
    training_bytes: Count
    full_training_bytes: Count


class Influence(Record):
    """How one feature moved the ranking."""

    feature: str
    higher_is_better: bool
    spread: NonNegative = Field(
        description="standard deviation over layers of what it adds to their contributions"
    )


class Suggestion(Record):
    """Which layer to train, how sure that is, and what it rests on."""

    schema_version: Literal[1] = SCHEMA_VERSION
    pick: Index
    expected_loss: Number | None = Field(
        default=None, description="of the pick against the best layer, in contribution"
    )
    loss_bound: Number | None = Field(
        default=None, description="what the pick loses at most, in 80 % of the cases"
    )
    shortlist: tuple[Index, ...] = Field(
        default=(), description="the best layer is one of these with a chance of 80 %"
    )
    influences: tuple[Influence, ...] = Field(
        default=(), description="the features that moved the ranking most"
    )
    because: tuple[str, ...] = Field(
        default=(), description="features that put the pick above the next layer"
    )
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
    learning_rate: Positive | None = Field(
        default=None, description="to train the pick at, where the probe one_step was measured"
    )
    measured_by: str | None = Field(description="whose measurement `measured` is")
    coverage: Share = Field(description="share of measurements the intervals should hold")
    layers: tuple[LayerSuggestion, ...]
    model: ModelSummary
    task: TaskSummary
    rollouts: RolloutSummary
    cost: Cost
    savings: Savings
    seed: int
    versions: dict[str, str]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Every layer of the model is there once, in order, and the pick is one of them."""
        layers = [each.layer for each in self.layers]
        if layers != list(range(self.model.layers)):
            raise ValueError(f"it lists {len(layers)} of the model's {self.model.layers} layers")
        if self.pick not in layers:
            raise ValueError(f"it picks layer {self.pick}, which the model does not have")
        for each in self.layers:
            if not each.interval[0] <= each.interval[1]:
                raise ValueError(f"the interval of layer {each.layer} is upside down")
        return self

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

    def save(self, path: Path | str) -> None:
        """Write the JSON, whole or not at all."""
        write_text(Path(path), self.to_json())


def read_suggestion(path: Path | str) -> Suggestion:
    """Read a `suggestion.json`. Raises LayerpickError for a file that is none."""
    file = Path(path)
    if not file.is_file():
        raise LayerpickError(f"The suggestion {path} does not exist.")
    what = f"a suggestion, version {SCHEMA_VERSION}"
    return read_record(file, Suggestion, what, "make it again with `layerpick suggest`")
