"""One RL training as a record that outlives it: what was run, with what, and what came of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1

Rates = Literal["shared", "own"]
"""Whether all runs of a sweep are trained at one learning rate, or each policy at its own best."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunKey(_Value):
    """Which run of a sweep."""

    kind: Literal["base", "full", "layer"]
    seed: int
    learning_rate: float | None = Field(default=None, description="None for the base score")
    layer: int | None = Field(default=None, description="the layer trained alone")

    @property
    def name(self) -> str:
        """Name of the run's file, without its ending."""
        if self.kind == "base":
            return f"base-seed{self.seed}"
        what = "full" if self.layer is None else f"layer{self.layer:03d}"
        return f"{what}-lr{self.learning_rate:g}-seed{self.seed}"


class RunSettings(_Value):
    """What must be equal for a stored run to stand for one asked for."""

    model: str
    revision: str | None
    weights_hash: str
    layers: int = Field(description="decoder layers of the model")
    dtype: str = Field(description="number format of the frozen weights; trained ones are float32")
    task: str
    source: str = Field(description="data set, generator or world")
    data_hash: str
    task_settings_hash: str = Field(description="template, stop strings, reward and the like")
    algorithm: str
    engine: str
    steps: int
    prompts: int = Field(description="prompts of one step")
    group_size: int
    max_new_tokens: int
    max_turns: int
    temperature: float
    epsilon: float
    beta: float
    max_grad_norm: float
    heldout_prompts: int
    heldout_samples: int
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


class RunRecord(_Value):
    """What came of one run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run: RunKey
    settings: RunSettings
    learning_rate_grid: tuple[float, ...]
    status: Literal["done", "failed"]
    reason: str | None = Field(default=None, description="why it failed")
    curve: tuple[float, ...] = Field(description="mean training reward of each step")
    score: float | None = Field(description="mean reward on held-out prompts")
    error: float | None = Field(description="standard error of the score over prompts")
    prompt_scores: tuple[float, ...] = Field(description="mean reward of each held-out prompt")
    cut: float | None = Field(
        default=None, description="share of held-out completions cut off at the longest length"
    )
    tokens: int = Field(description="tokens written, in training and scoring")
    seconds: float = Field(description="the run's share of its pass")
    policies_in_pass: int
    device: str
    versions: dict[str, str]
