"""What the probes found about one model, kept beside the sweep that measured it.

A predictor learns from pairs: the features of every layer, and the contributions that a sweep
measured. The features lie in the sweep's own folder, as `features.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerpick.training.errors import LayerpickError
from layerpick.training.files import as_json, write_text

FEATURES_FILE = "features.json"
SCHEMA_VERSION: Literal[1] = 1


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureCost(_Value):
    """What one probe, or the rollouts that all of them share, cost."""

    seconds: float
    sampled_tokens: int = Field(description="tokens written by the model")
    read_tokens: int = Field(description="tokens passed forward without writing any")


class FeatureTable(_Value):
    """The features of all layers of one model × task × algorithm."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    family: str = Field(description="the configuration's model type, as `qwen3`")
    weights_hash: str
    task: str
    algorithm: str
    layers: int
    base_reward: float = Field(description="mean reward of the rollouts")
    rollouts: FeatureCost
    costs: dict[str, FeatureCost] = Field(description="by probe")
    features: dict[str, dict[str, tuple[float, ...]]] = Field(
        description="by probe, by feature: one number per layer"
    )
    failures: dict[str, str] = Field(
        default_factory=dict, description="probes that failed, or lack some features, and why"
    )
    versions: dict[str, str]


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
    try:
        return FeatureTable.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise LayerpickError(
            f"{path} is no table of features, version {SCHEMA_VERSION}: delete it, and run "
            f"`layerpick sweep` with the same settings to measure it again."
        ) from error
