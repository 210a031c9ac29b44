"""How a pick turned out, as a typed value."""

from __future__ import annotations

from pydantic import Field

from layerpick.training.values import Record

SCHEMA_VERSION = 1


class MeasuredScore(Record):
    """A score on held-out prompts."""

    mean: float
    error: float | None = Field(description="standard error")


class LayerVerdict(Record):
    """One layer, predicted and measured."""

    layer: int
    predicted: float | None = None
    interval: tuple[float, float] | None = None
    measured: float | None = Field(default=None, description="contribution")
    error: float | None = Field(default=None, description="standard error of the contribution")
    score: float | None = Field(default=None, description="measured score")
    score_error: float | None = Field(default=None, description="standard error of the score")

    @property
    def held(self) -> bool | None:
        """Whether the interval holds the measured contribution."""
        if self.interval is None or self.measured is None:
            return None
        return self.interval[0] <= self.measured <= self.interval[1]


class Verification(Record):
    """How a pick turned out."""

    schema_version: int = SCHEMA_VERSION
    model: str
    task: str
    algorithm: str
    measured_by: str = Field(description="what the measurement is")
    pick: LayerVerdict
    picked: str = Field(description="what was picked, in words")
    base: MeasuredScore
    trained: MeasuredScore | None = Field(description="score with the pick trained")
    full: MeasuredScore | None = Field(description="score after full-parameter training")
    layers: tuple[LayerVerdict, ...] = Field(description="all that were predicted or measured")
    coverage: float | None = Field(description="share of measurements that intervals should hold")
    interval_held: bool | None = Field(description="of the pick")
    intervals_held: float | None = Field(description="share of all measured layers")
    rank: int | None = Field(description="of the pick among the measured layers; 1 is the best")
    best: int | None = Field(description="the best measured layer")
    regret: float | None = Field(description="best measured contribution less the pick's")
    share_lost: float | None = Field(
        default=None, description="(S_best − S_pick) / (S_best − S_base), of scores; 0 is best"
    )
    share_lost_error: float | None = Field(default=None, description="its standard error")
    rank_correlation: float | None = Field(description="Spearman, predicted against measured")
    noise_ceiling: float | None = Field(description="what a repeated sweep reaches")
    differences: tuple[str, ...] = Field(
        description="settings in which what was picked and what it is measured by differ"
    )
    refusal: str | None = Field(description="why contributions mean nothing here, if so")
