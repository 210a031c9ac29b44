"""What came of a race, as a typed value and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from layerpick.training.files import write_text
from layerpick.training.runs.folder import PolicyScore
from layerpick.training.values import Record

RESULT_FILE = "result.json"


class ArmResult(Record):
    """One arm."""

    layer: int
    learning_rate: float
    predicted: float = Field(description="predicted contribution, before the race")
    chance_best: float = Field(description="of being the best arm, when it was last judged")
    steps: int = Field(description="steps that it took")
    curve: tuple[float, ...] = Field(description="mean training reward of each of them")
    score: PolicyScore | None = Field(
        description="on held-out prompts, after these steps; of those that took all, and of the "
        "runner-up as it left"
    )
    failure: str | None = None


class RaceResult(Record):
    """How a race ended."""

    model: str
    layers: int = Field(description="decoder layers of the model")
    task: str
    algorithm: str
    seed: int
    steps: int = Field(description="of the whole race")
    winner: int = Field(description="the winning layer")
    learning_rate: float = Field(description="the winner's")
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
    def ranked(self) -> tuple[ArmResult, ...]:
        """The arms: the winner, then by steps taken and chance of being best."""
        return tuple(
            sorted(self.arms, key=lambda arm: (not self.won(arm), -arm.steps, -arm.chance_best))
        )

    @property
    def rates(self) -> int:
        """At how many learning rates layers were raced."""
        return len({arm.learning_rate for arm in self.arms})

    def won(self, arm: ArmResult) -> bool:
        """Whether it is the winner."""
        return (arm.layer, arm.learning_rate) == (self.winner, self.learning_rate)

    def name(self, arm: ArmResult) -> str:
        """An arm in words."""
        return f"layer {arm.layer}" + (f" at {arm.learning_rate:g}" if self.rates > 1 else "")

    @property
    def headline(self) -> str:
        """The sentence that a person needs."""
        arm = self.ranked[0]
        assert arm.score is not None
        at = f" at {arm.learning_rate:g}" if self.rates > 1 else ""
        return (
            f"Layer {arm.layer} of {self.layers}{at} won among {len(self.arms)}: "
            f"{self.base.mean:.2f} → "
            f"{arm.score.mean:.2f} ± {arm.score.error:.2f}, for {self.cost:.1f} single-layer runs; "
            f"the chance that another layer would have been better is {self.chance_missed:.0%}."
        )

    def save(self, place: Path) -> None:
        """Write the JSON into a folder, whole or not at all."""
        write_text(place / RESULT_FILE, json.dumps(self.model_dump(mode="json"), indent=2) + "\n")
