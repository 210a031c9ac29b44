"""What a vote comes to, as a value and JSON."""

from __future__ import annotations

from pydantic import Field

from layerpick.training.runs.folder import PolicyScore
from layerpick.training.values import Record

SCHEMA_VERSION = 1


class Voter(Record):
    """One model with a vote."""

    run: str
    trained: str = Field(description="what was trained, in words")
    score: PolicyScore
    with_majority: float = Field(description="share of answers that are the majority's")
    trained_parameters: int


class Vote(Record):
    """Several models' answers to the same held-out prompts, and the majority's."""

    schema_version: int = SCHEMA_VERSION
    model: str
    task: str
    voters: tuple[Voter, ...]
    base: PolicyScore
    score: PolicyScore = Field(description="of the majority's answers")
    best: int = Field(description="index of the voter with the highest score")
    gain: float = Field(description="score less the best voter's")
    gain_error: float = Field(description="its standard error, paired by prompt")
    agreement: float = Field(description="mean share of voters that give the majority's answer")
    unanimous: float = Field(description="share of votes in which all give one answer")
    tokens: int = Field(description="tokens written by all voters")
    tokens_of_one: float = Field(description="mean over the voters")
    seconds: float = Field(description="sampling, all voters")
    stored_parameters: int = Field(description="beside the base model, for all voters")
    full_parameters: int
