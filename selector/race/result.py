"""What came of a race, as a typed value and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from layerpick.training.files import write_text
from layerpick.training.runs.folder import PolicyScore
from layerpick.training.values import Record


class ArmResult(Record):
    """One arm."""

    layer: int
    learning_rate: float
    predicted: float = Field(description="predicted contribution, before the race")
    chance_best: float = Field(description="of being the best arm, when it was last judged")
    steps: int = Field(description="steps that it took")
    curve: tuple[float, ...] = Field(description="mean training reward of each of them")
    score: PolicyScore | None = Field(description="on held-out prompts; finalists only")
    failure: str | None = None


class RaceResult(Record):
    """How a race ended."""

    model: str
    layers: int = Field(description="decoder layers of the model")
    task: str
    algorithm: str
    seed: int
    winner: int = Field(description="the winning layer")
    chance_missed: float = Field(
        description="chance that a layer which left, or never set out, would have been better"
    )
    cost: float = Field(description="in single-layer runs")
    rungs: tuple[int, ...] = Field(description="steps after which arms could leave")
    base: PolicyScore
    arms: tuple[ArmResult, ...]
    basis: str = Field(description="what the prediction rests on")
    seconds: float = Field(description="sampling and updates of all arms")
    versions: dict[str, str]

    @property
    def headline(self) -> str:
        """The sentence that a person needs."""
        arm = next(arm for arm in self.arms if arm.layer == self.winner and arm.score)
        assert arm.score is not None
        out = len({other.layer for other in self.arms})
        return (
            f"Layer {self.winner} of {self.layers} won among {out}: {self.base.mean:.2f} → "
            f"{arm.score.mean:.2f} ± {arm.score.error:.2f}, for {self.cost:.1f} single-layer runs; "
            f"the chance that another layer would have been better is {self.chance_missed:.0%}."
        )

    def save(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        write_text(path, json.dumps(self.model_dump(mode="json"), indent=2) + "\n")
