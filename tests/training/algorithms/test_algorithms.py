import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.training.algorithms.gigpo import GiGpo, discounted_returns
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.episodes.trajectory import Trajectory, Turn
from layerpick.training.errors import LayerpickError


def episode(rewards, observations=None, group=0):
    """A trajectory with one two-token turn per reward."""
    observations = observations or ["start"] * len(rewards)
    turns = tuple(
        Turn(1 + 3 * i, 3 + 3 * i, observation, reward)
        for i, (reward, observation) in enumerate(zip(rewards, observations, strict=True))
    )
    return Trajectory(group, tuple(range(1 + 3 * len(rewards))), turns, sum(rewards))


def test_grpo_by_hand():
    group = [episode([r]) for r in (1.0, 0.0, 0.0, 1.0)]
    std = math.sqrt(4 * 0.25 / 3)  # deviations of ±1/2, divided by n − 1
    expected = [0.5 / (std + 1e-4), -0.5 / (std + 1e-4)]
    values = [a[0] for a in make_algorithm("grpo").advantages(group)]
    assert values == pytest.approx([expected[0], expected[1], expected[1], expected[0]], abs=1e-12)


def test_dr_grpo_by_hand():
    group = [episode([r]) for r in (1.0, 0.0, 0.0, 0.0)]
    values = [a[0] for a in make_algorithm("dr_grpo").advantages(group)]
    assert values == pytest.approx([0.75, -0.25, -0.25, -0.25], abs=1e-12)
    assert make_algorithm("dr_grpo").token_weight(3, 64) == 1 / 64
    assert make_algorithm("grpo").token_weight(4, 64) == 1 / 4


def test_discounted_returns_by_hand():
    returns = discounted_returns(episode([1.0, 0.0, 2.0]), gamma=0.5)
    assert returns.tolist() == [1.5, 1.0, 2.0]


def test_gigpo_by_hand():
    """Two episodes of two steps; they share state A at step 0 and nothing later."""
    group = [episode([0.0, 1.0], ["A", "B"]), episode([0.0, 0.0], ["A", "C"])]
    # Episode rewards 1 and 0: deviations ±1/2, sample std 1/√2.
    outer = 0.5 / (math.sqrt(0.5) + 1e-4)
    # Returns at A: γ·1 = 0.95 and 0: deviations ±0.475, sample std 0.95/√2. B and C stand alone.
    inner = 0.475 / (0.95 / math.sqrt(2) + 1e-4)
    first, second = GiGpo().advantages(group)
    assert first == pytest.approx([outer + inner, outer], abs=1e-9)
    assert second == pytest.approx([-outer - inner, -outer], abs=1e-9)
    half, _ = GiGpo(step_weight=0.5).advantages(group)
    assert half == pytest.approx([outer + 0.5 * inner, outer], abs=1e-9)


def test_gigpo_clusters_steps_of_one_episode_too():
    """A state visited twice by the same episode forms a cluster with itself."""
    group = [episode([0.0, 1.0], ["A", "A"]), episode([0.0], ["B"])]
    returns = [0.95, 1.0]
    mean, std = 0.975, math.sqrt(2 * 0.025**2)
    steps = GiGpo().step_advantages(group)
    assert steps[0] == pytest.approx([(r - mean) / (std + 1e-4) for r in returns], abs=1e-9)
    assert steps[1].tolist() == [0.0]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-3, 3))
def test_a_constant_added_to_all_rewards_changes_nothing(rewards, shift):
    for name in ("grpo", "dr_grpo"):
        algorithm = make_algorithm(name)
        before = np.array([a[0] for a in algorithm.advantages([episode([r]) for r in rewards])])
        after = np.array(
            [a[0] for a in algorithm.advantages([episode([r + shift]) for r in rewards])]
        )
        assert after == pytest.approx(before, abs=1e-6)
        assert before.sum() == pytest.approx(0, abs=1e-6)


def test_grpo_agrees_with_trl():
    """TRL normalises (rewards, group size) tensors; feed it ours."""
    import torch
    from trl.trainer.utils import nanstd

    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.25], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    theirs = centred / (nanstd(rewards, dim=1, keepdim=True) + 1e-4)
    algorithm = make_algorithm("grpo")
    for row, expected in zip(rewards.tolist(), theirs, strict=True):
        ours = [a[0] for a in algorithm.advantages([episode([r]) for r in row])]
        assert ours == pytest.approx(expected.tolist(), abs=1e-6)


def test_unknown_algorithm():
    with pytest.raises(LayerpickError, match="grpo, dr_grpo, gigpo"):
        make_algorithm("ppo")
