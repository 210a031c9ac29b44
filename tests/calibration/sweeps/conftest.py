"""Records as a sweep leaves them, made up."""

from __future__ import annotations

import numpy as np
import pytest

from layerpick.training.sweeps.records import RunKey, RunRecord, RunSettings

SETTINGS = RunSettings(
    model="tiny",
    revision=None,
    weights_hash="ab",
    layers=4,
    dtype="float32",
    task="math",
    source="sums",
    data_hash="cd",
    task_settings_hash="ef",
    algorithm="grpo",
    engine="multiplexed",
    steps=2,
    prompts=2,
    group_size=2,
    max_new_tokens=4,
    max_turns=1,
    temperature=1.0,
    epsilon=0.2,
    beta=0.0,
    max_grad_norm=1.0,
    heldout_prompts=3,
    heldout_samples=2,
    prompts_hash="01",
)


def _made(kind, seed=0, layer=None, scores=(0.0, 0.5, 1.0), rate=1e-3, status="done", **others):
    rate = None if kind == "base" else rate
    failed = status == "failed"
    return RunRecord(
        run=RunKey(kind=kind, seed=seed, learning_rate=rate, layer=layer),
        settings=SETTINGS.model_copy(update={"heldout_prompts": len(scores), **others}),
        learning_rate_grid=(1e-3,),
        status=status,
        reason="its weights are not finite" if failed else None,
        curve=(0.1, 0.2),
        score=None if failed else float(np.mean(scores)),
        error=None if failed else 0.1,
        prompt_scores=() if failed else tuple(scores),
        tokens=10,
        seconds=1.5,
        policies_in_pass=1,
        device="cpu",
        versions={"torch": "2"},
    )


@pytest.fixture(scope="session")
def made():
    """`made(kind, seed, layer, scores)`: the record of a run."""
    return _made


@pytest.fixture(scope="session")
def settings():
    """Those of every record made."""
    return SETTINGS
