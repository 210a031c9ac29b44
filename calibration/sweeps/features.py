"""What the probes found about one model, kept beside the sweep that measured it.

A predictor learns from pairs: the features of every layer, and the contributions that a sweep
measured. The features lie in the sweep's own folder, as `features.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from layerpick.training.files import as_json, write_text
from layerpick.training.reading import read_record
from layerpick.training.values import Count, Feature, NonNegative, Number, Record

FEATURES_FILE = "features.json"
SCHEMA_VERSION: Literal[1] = 1


class FeatureCost(Record):
    """What one probe, or the rollouts that all of them share, cost."""

    seconds: NonNegative
    sampled_tokens: Count = Field(description="tokens written by the model")
    read_tokens: Count = Field(description="tokens passed forward without writing any")


class FeatureTable(Record):
    """The features of all layers of one model × task × algorithm."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    family: str = Field(description="the configuration's model type, as `qwen3`")
    weights_hash: str
    task: str
    algorithm: str
    layers: int = Field(ge=1)
    base_reward: Number = Field(description="mean reward of the rollouts")
    one_step_rate: NonNegative | None = Field(
        default=None, description="learning rate of the probe one_step; older tables do not say"
    )
    rollouts: FeatureCost
    costs: dict[str, FeatureCost] = Field(description="by probe")
    features: dict[str, dict[str, tuple[Feature, ...]]] = Field(
        description="by probe, by feature: one number per layer"
    )
    failures: dict[str, str] = Field(
        default_factory=dict, description="probes that failed, or lack some features, and why"
    )
    versions: dict[str, str]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Every feature has a number for every layer."""
        for probe, own in self.features.items():
            for name, values in own.items():
                if len(values) != self.layers:
                    raise ValueError(f"{probe}.{name} has {len(values)} of {self.layers} layers")
        return self

    def joined(self, later: FeatureTable) -> FeatureTable:
        """These features and those of other probes, measured later on rollouts sampled anew."""
        both = (self.rollouts, later.rollouts)
        return self.model_copy(
            update={
                "rollouts": FeatureCost(
                    seconds=sum(each.seconds for each in both),
                    sampled_tokens=sum(each.sampled_tokens for each in both),
                    read_tokens=sum(each.read_tokens for each in both),
                ),
                "one_step_rate": self.one_step_rate or later.one_step_rate,
                "costs": {**later.costs, **self.costs},
                "features": {**later.features, **self.features},
                "failures": {**later.failures, **self.failures},
            }
        )


def write_features(table: FeatureTable, folder: Path) -> None:
    """Write `features.json` into a folder, whole or not at all."""
    write_text(folder / FEATURES_FILE, as_json(table))


def read_features(folder: Path) -> FeatureTable | None:
    """The features kept in a sweep's folder, or None if there are none.

    Raises LayerpickError for a file that is no table of features.
    """
    path = folder / FEATURES_FILE
    if not path.is_file():
        return None
    what = f"a table of features, version {SCHEMA_VERSION}"
    remedy = "delete it, and run `layerpick sweep` with the same settings to measure it again"
    return read_record(path, FeatureTable, what, remedy)
