"""One RL training as a record that outlives it: what was run, with what, and what came of it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from layerpick.training.values import Count, Index, NonNegative, Number, Positive, Record, Share

SCHEMA_VERSION: Literal[1] = 1

Rates = Literal["shared", "own"]
"""Whether all runs of a sweep are trained at one learning rate, or each policy at its own best."""


class RunKey(Record):
    """Which run of a sweep."""

    kind: Literal["base", "full", "layer"]
    seed: Count
    learning_rate: Positive | None = Field(default=None, description="None for the base score")
    layer: Index | None = Field(default=None, description="the layer trained alone")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """A layer has a number and a rate, the full run a rate, the base score neither."""
        found = (self.learning_rate is not None, self.layer is not None)
        if (
            found
            != {"base": (False, False), "full": (True, False), "layer": (True, True)}[self.kind]
        ):
            raise ValueError(f"a run of kind '{self.kind}' has other fields")
        return self

    @property
    def name(self) -> str:
        """Name of the run's file, without its ending."""
        if self.kind == "base":
            return f"base-seed{self.seed}"
        what = "full" if self.layer is None else f"layer{self.layer:03d}"
        return f"{what}-lr{self.learning_rate:g}-seed{self.seed}"


class RunSettings(Record):
    """What must be equal for a stored run to stand for one asked for."""

    model: str
    revision: str | None
    weights_hash: str
    layers: int = Field(ge=1, lt=2**20, description="decoder layers of the model")
    dtype: str = Field(description="number format of the frozen weights; trained ones are float32")
    task: str
    source: str = Field(description="data set, generator or world")
    data_hash: str
    task_settings_hash: str = Field(description="template, stop strings, reward and the like")
    algorithm: str
    engine: str
    steps: Count
    prompts: Count = Field(description="prompts of one step")
    group_size: Count
    max_new_tokens: Count
    max_turns: Count
    temperature: NonNegative
    epsilon: NonNegative
    beta: NonNegative
    max_grad_norm: NonNegative
    heldout_prompts: Count
    heldout_samples: Count
    prompts_hash: str = Field(description="of the held-out prompts")
    prompt_form: str | None = Field(
        default=None, description="in words; `task_settings_hash` decides whether two are equal"
    )
    rates: Rates = Field(
        default="shared",
        description="shared: one learning rate for all runs, chosen on the full run; own: every "
        "policy is trained at every rate of the grid, and its own is chosen when scores are read",
    )

    def differences(self, other: RunSettings) -> dict[str, tuple[Any, Any]]:
        """Settings in which two runs differ, by name: ours and the other's.

        Forms of prompts are compared by hash, which older records have too, and named in words.
        """
        found = {name: (value, getattr(other, name)) for name, value in self}
        forms = found.pop("prompt_form")
        unequal = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
        if "task_settings_hash" in unequal and forms[0] != forms[1]:
            del unequal["task_settings_hash"]
            unequal["prompt_form"] = forms
        return unequal

    @property
    def about(self) -> tuple[str, str, str, str]:
        """What a sweep is found by: weights, task, algorithm and data."""
        return self.weights_hash, self.task, self.algorithm, self.data_hash


class RunRecord(Record):
    """What came of one run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run: RunKey
    settings: RunSettings
    learning_rate_grid: tuple[Positive, ...]
    status: Literal["done", "failed"]
    reason: str | None = Field(default=None, description="why it failed")
    curve: tuple[Number, ...] = Field(description="mean training reward of each step")
    score: Number | None = Field(description="mean reward on held-out prompts")
    error: NonNegative | None = Field(description="standard error of the score over prompts")
    prompt_scores: tuple[Number, ...] = Field(description="mean reward of each held-out prompt")
    cut: Share | None = Field(
        default=None, description="share of held-out completions cut off at the longest length"
    )
    tokens: Count = Field(description="tokens written, in training and scoring")
    seconds: NonNegative = Field(description="the run's share of its pass")
    policies_in_pass: Count
    device: str
    versions: dict[str, str]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """What a record says in two places is the same in both."""
        run, settings = self.run, self.settings
        if run.layer is not None and run.layer >= settings.layers:
            raise ValueError(f"layer {run.layer} of a model of {settings.layers} layers")
        if self.status == "done":
            scores = self.prompt_scores
            if self.score is None or self.error is None or len(scores) != settings.heldout_prompts:
                raise ValueError(f"a finished run with {len(scores)} scores")
            mean = sum(scores) / len(scores)
            if abs(mean - self.score) > 1e-6 * max(1.0, *map(abs, scores)):
                raise ValueError(f"a score of {self.score:g}, but a mean of {mean:g} over prompts")
        return self
