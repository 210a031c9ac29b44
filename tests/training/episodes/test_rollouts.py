import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.batches.padded import collate, token_log_probs, token_values
from layerpick.training.episodes.play import SamplingSettings
from layerpick.training.episodes.rollouts import (
    FORMAT,
    groups_with_signal,
    load_rollouts,
    sample_rollouts,
    save_rollouts,
)
from layerpick.training.episodes.trajectory import Trajectory, Turn
from layerpick.training.errors import LayerpickError
from layerpick.training.models.head import log_probs_of
from layerpick.training.tasks.base import TaskSettings
from layerpick.training.tasks.math import MathTask
from layerpick.training.tensor_files import read_tensors, save_tensors

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def rollouts(tiny, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def f(completions, **_):\n    return [len(c) % 2 for c in completions]\n")
    settings = TaskSettings(
        dataset="reasoning-gym:chain_sum?max_digits=2",
        template="{expression}=",
        reward=f"{path}:f",
    )
    return sample_rollouts(
        tiny("qwen3"),
        MathTask(settings),
        prompts=4,
        group_size=4,
        sampling=SamplingSettings(6),
        seed=3,
    )


def test_saved_rollouts_come_back_equal(rollouts, tmp_path):
    save_rollouts(rollouts, tmp_path / "r.safetensors")
    assert load_rollouts(tmp_path / "r.safetensors") == rollouts
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_rollouts_summarise_themselves(rollouts):
    rewards = np.array([t.reward for t in rollouts.trajectories]).reshape(4, 4)
    assert rollouts.mean_reward == pytest.approx(rewards.mean())
    expected = rewards.mean(axis=1).std(ddof=1) / 2
    assert rollouts.reward_error == pytest.approx(expected)
    assert [len(group) for group in rollouts.groups] == [4] * 4
    assert all(t.group == i for i, group in enumerate(rollouts.groups) for t in group)


def test_signal_counts_groups_whose_rewards_differ(rollouts):
    by_hand = sum(len({t.reward for t in group}) > 1 for group in rollouts.groups)
    assert groups_with_signal(rollouts, make_algorithm("grpo")) == by_hand > 0


def test_unreadable_rollouts_files(tmp_path):
    (tmp_path / "text").write_text("no tensors")
    save_file({"a": np.zeros(2)}, tmp_path / "other.safetensors")
    for name in ("nothing", "text", "other.safetensors"):
        with pytest.raises(LayerpickError, match=name):
            load_rollouts(tmp_path / name)


def header_of(change):
    """A change of the origin, or of another part of the header."""

    def apply(tensors, header):
        origin = {**json.loads(header["origin"]), **change.pop("origin", {})}
        header.update({name: json.dumps(value) for name, value in change.items()})
        header["origin"] = json.dumps(origin)

    return apply


def tensor_of(name, change):
    def apply(tensors, header):
        tensors[name] = change(tensors[name]).contiguous()

    return apply


@pytest.mark.parametrize(
    "change",
    [
        *(header_of({"origin": {"group_size": size}}) for size in (10**9, 2, -1, 0, None, 4.5)),
        header_of({"origin": {"prompts": 2, "group_size": 8}}),
        header_of({"origin": {"prompts": 8, "group_size": 2}}),
        header_of({"origin": {"prompts": True}}),
        header_of({"origin": {"max_new_tokens": 10**30}}),
        header_of({"origin": {"max_new_tokens": 1}}),
        header_of({"origin": {"temperature": 0}}),
        header_of({"origin": {"temperature": float("nan")}}),
        header_of({"origin": {"seed": -1}}),
        header_of({"observations": [None] * 16}),
        header_of({"observations": "x" * 16}),
        header_of({"failures": [1] * 16}),
        header_of({"failures": []}),
        tensor_of("group", lambda group: group.flip(0)),
        tensor_of("group", lambda group: group * 0),
        tensor_of("rewards", lambda rewards: rewards * float("nan")),
        tensor_of("rewards", lambda rewards: rewards + float("inf")),
        tensor_of("rewards", lambda rewards: rewards + 1e300),
        tensor_of("rewards", lambda rewards: rewards[:-1]),
        tensor_of("turn_rewards", lambda rewards: rewards * float("nan")),
        tensor_of("tokens", lambda tokens: tokens + 258),
        tensor_of("tokens", lambda tokens: tokens - 10**6),
        tensor_of("tokens", lambda tokens: tokens.float()),
        tensor_of("tokens", lambda tokens: tokens[:-1]),
        tensor_of("lengths", lambda lengths: lengths.flip(0) * 2),
        tensor_of("turn_spans", lambda spans: spans * 0),
        tensor_of("turn_spans", lambda spans: spans + 2**40),
        tensor_of("turn_cuts", lambda cuts: cuts + 2),
        tensor_of("turns_per_episode", lambda turns: turns * 0),
        lambda tensors, header: tensors.pop("tokens"),
        lambda tensors, header: header.pop("origin"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(rollouts, tiny, tmp_path, change):
    """Forged with care: its checksum is right, one field is not."""
    path = tmp_path / "r.safetensors"
    save_rollouts(rollouts, path)
    tensors, header = read_tensors(path, FORMAT, "", "")
    change(tensors, header)
    save_tensors(path, tensors, header)
    with pytest.raises(LayerpickError, match=r"r\.safetensors cannot be read as rollouts") as error:
        load_rollouts(path, tiny("qwen3"))
    assert "\n" not in str(error.value)


def hand_made():
    """Three rows: two turns with an observation between, one short turn, one long prompt."""
    return [
        Trajectory(0, (5, 6, 7, 8, 9, 10, 11), (Turn(2, 4, "a", 0), Turn(5, 7, "b", 1)), 1.0),
        Trajectory(0, (12, 13), (Turn(1, 2, "a", 0),), 0.0),
        Trajectory(1, (20, 21, 22, 23, 24), (Turn(4, 5, "c", 0),), 0.0),
    ]


def test_log_probs_equal_unpadded_float64_forward_passes(tiny, family):
    model = tiny(family)
    trajectories = hand_made()
    batch = collate(trajectories, 0, torch.device("cpu"))
    with torch.no_grad():
        ours = token_log_probs(model.model, batch, temperature=0.7)
        for row, trajectory in enumerate(trajectories):
            logits = model.model(input_ids=torch.tensor([trajectory.tokens])).logits[0].double()
            expected = torch.log_softmax(logits / 0.7, dim=-1)
            for position in np.flatnonzero(trajectory.model_mask):
                column = position - trajectory.prompt_length
                wanted = float(expected[position - 1, trajectory.tokens[position]])
                assert float(ours[row, column]) == pytest.approx(wanted, abs=2e-4)
                assert bool(batch.written[row, column])
    assert batch.written.sum() == sum(t.generated for t in trajectories)


def test_token_values_reach_the_tokens_of_their_turn():
    trajectories = hand_made()
    batch = collate(trajectories, 0, torch.device("cpu"))
    values = token_values(
        trajectories, [np.array([1.0, 2.0]), np.array([3.0]), np.array([4.0])], batch
    )
    assert values.tolist() == [[1, 1, 0, 2, 2], [3, 0, 0, 0, 0], [4, 0, 0, 0, 0]]


def test_log_probs_agree_with_trl():
    from trl.trainer.utils import selective_log_softmax

    logits = torch.randn(3, 4, 50, dtype=torch.float32)
    targets = torch.randint(50, (3, 4))
    theirs = selective_log_softmax(logits / 0.8, targets)
    assert torch.allclose(log_probs_of(logits, targets, 0.8), theirs, atol=1e-5)
