"""Which rows stand in a batch together, on a model whose layers look back over a window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerpick.probes.trials import prefixes
from layerpick.training.batches.padded import collate, token_log_probs
from layerpick.training.batches.rows import ChunkLimits, RowSharing
from layerpick.training.engine.learner import Learner, Lesson
from layerpick.training.engine.policies import FullPolicy
from layerpick.training.episodes.trajectory import Trajectory, Turn
from layerpick.training.settings import RlSettings

LENGTHS = [(2, 3), (30, 20), (3, 2)]
"""Tokens written by the samples of each prompt, of 3 tokens: the window is of 8."""


@pytest.fixture
def groups() -> list[list[Trajectory]]:
    draw = np.random.default_rng(0)
    made = []
    for group, lengths in enumerate(LENGTHS):
        prompt = draw.integers(5, 60, 3).tolist()
        made.append(
            [
                Trajectory(
                    group,
                    (*prompt, *draw.integers(5, 60, length).tolist()),
                    (Turn(3, 3 + length, "", 0.0),),
                    0.0,
                )
                for length in lengths
            ]
        )
    return made


def alone(model, trajectory) -> torch.Tensor:
    batch = collate([trajectory], 0, torch.device("cpu"))
    return token_log_probs(model.model, batch, 1.0)[batch.written]


@torch.no_grad()
def test_a_row_longer_than_a_window_has_the_log_probs_that_it_has_alone(tiny, groups):
    """Beside rows that are shared, whose mask all layers would have in common."""
    model = tiny("gemma3_text")
    learner = Learner(FullPolicy(model), RlSettings(), 1e-3, 1.0)
    lessons = [Lesson(0, each, np.ones(1), 1.0) for group in groups for each in group]
    assert [len(row) for row in learner._rows(lessons)] == [2, 1, 1, 2]
    for lesson, found in learner.log_probs(lessons):
        expected = alone(model, lesson.trajectory)
        assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)


def test_the_probes_keep_to_it_too(tiny, groups):
    sharing = RowSharing(tiny("gemma3_text"), ChunkLimits(1000, 1000))
    rows = []
    for group in groups:
        samples = [prefixes._Sample([each], np.ones(1)) for each in group]
        size = sharing.samples_per_row(group)
        rows += [samples[start : start + size] for start in range(0, len(samples), size)]
    chunks = list(prefixes._chunks(rows, 10_000, sharing))
    assert [[len(row) for row in chunk] for chunk in chunks] == [[2], [1, 1], [2]]
