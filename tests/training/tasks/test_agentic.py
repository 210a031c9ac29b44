"""The agentic task: prompts, turns, penalties and failures, by its public interface."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpick.training.errors import LayerpickError
from layerpick.training.tasks.agentic import AgenticTask, turn_text
from layerpick.training.tasks.base import StepResult, TaskSettings

LAKE = "SFFF\nFHFH\nFFFH\nHFFG"
SOLUTION = ["down", "down", "right", "down", "right", "right"]

BROKEN = """
import time
from layerpick.training.environments.base import TextWorld, WorldStep

class Half(TextWorld):
    rules = "Wait."
    def reset(self, seed):
        if seed // 2 % 3 == 0:
            raise RuntimeError("no such game")
        return f"seed {seed}"
    def step(self, action):
        if action == "hang":
            time.sleep(3600)
        return WorldStep("more", 0.5, False)

class Never(Half):
    def reset(self, seed):
        raise RuntimeError("never")
"""


def task(**chosen: object) -> AgenticTask:
    return AgenticTask(TaskSettings(**chosen))  # type: ignore[arg-type]


def test_an_episode_reads_and_writes_one_text() -> None:
    agentic = task(template="{prompt}")
    [prompt] = agentic.prompts("train", 1, 0)
    episodes = agentic.open([prompt])
    text, rewards = prompt.content, []
    for action in SOLUTION:
        [result] = episodes.step({0: action}).values()
        rewards.append(result.reward)
        text += f"{action}\n{result.observation}"
    episodes.close()
    assert rewards == [0, 0, 0, 0, 0, 1] and result == StepResult(1.0, done=True)
    assert text.startswith(
        "AFFF\nFHFH\nFFFH\nHFFG\n>down\nSFFF\nAHFH\nFFFH\nHFFG\n>down\nSFFF\nFHFH\nAFFH\nHFFG\n>"
    )
    assert text.endswith("SFFF\nFHFH\nFFFH\nHFAG\n>right\n")


def test_without_a_template_the_rules_come_first() -> None:
    [prompt] = task().prompts("train", 1, 0)
    rules = prompt.columns["rules"]
    assert "left, down, right or up" in rules
    assert prompt.content == f"{rules}\n\n{turn_text(prompt.columns['observation'])}"


@given(st.integers(0, 2**31), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_prompts_follow_the_seed_and_splits_never_meet(seed: int, count: int) -> None:
    agentic = task(env="FrozenLake-v1?size=4")
    train, heldout = (agentic.prompts(split, count, seed) for split in ("train", "heldout"))
    assert len(train) == count and train == agentic.prompts("train", count, seed)
    other = task(env="FrozenLake-v1?size=4").prompts("heldout", count, seed)
    assert heldout == other
    assert {p.columns["seed"] % 2 for p in train} == {0}
    assert {p.columns["seed"] % 2 for p in heldout} == {1}


@given(st.lists(st.sampled_from(["left", "down", "right", "up", "???"]), max_size=12))
@settings(max_examples=30, deadline=None)
def test_equal_prompts_play_equal_episodes(actions: list[str]) -> None:
    agentic = task(env="FrozenLake-v1?size=5", max_turns=50)
    [prompt] = agentic.prompts("train", 1, 7)
    episodes = agentic.open([prompt, prompt])
    for action in actions:
        first, second = episodes.step({0: action, 1: action}).values()
        assert first == second
        if first.done:
            break


def test_an_invalid_action_costs_the_penalty_and_a_turn() -> None:
    agentic = task(invalid_penalty=0.25, max_turns=3)
    prompts = agentic.prompts("train", 2, 0)
    episodes = agentic.open(prompts)
    start = turn_text(prompts[0].columns["observation"])
    answers = episodes.step({0: "jump", 1: "left"})
    state = prompts[0].columns["observation"]
    assert answers[0] == StepResult(-0.25, False, f"invalid\n{start}", state)
    assert answers[1] == StepResult(0.0, False, start, state)
    assert episodes.step({0: "right\n"})[0].observation == turn_text(LAKE.replace("SF", "SA", 1))
    assert episodes.step({0: ""})[0] == StepResult(-0.25, done=True)


def test_the_world_says_how_many_turns_are_usual() -> None:
    assert task().max_turns == 10
    assert task(env="FrozenLake-v1?map_name=8x8").max_turns == 22
    assert task(env="CliffWalking-v1").max_turns == 26
    assert task(max_turns=4).max_turns == 4


def test_broken_episodes_end_with_a_record_and_the_others_go_on(tmp_path: Path) -> None:
    file = tmp_path / "half.py"
    file.write_text(BROKEN)
    agentic = task(env=f"{file}:Half?timeout=1")
    prompts = agentic.prompts("train", 12, 0)
    broken = [p.columns["seed"] // 2 % 3 == 0 for p in prompts]
    assert True in broken and False in broken
    healthy = broken.index(False)
    episodes = agentic.open(prompts)
    results = episodes.step({i: "hang" if i == healthy else "go" for i in range(12)})
    for index, result in results.items():
        if broken[index]:
            assert result.done and "RuntimeError: no such game" in str(result.failure)
            assert f"seed {prompts[index].columns['seed']}" in str(result.failure)
        elif index == healthy:
            assert result.done and "hung" in str(result.failure) and result.reward == 0
        else:
            assert result == StepResult(0.5, False, turn_text("more"), state="more")
    episodes.close()
    with pytest.raises(LayerpickError, match=r"No episode could be started: .*Error: never"):
        task(env=f"{file}:Never").prompts("train", 5, 0)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"env": "Nowhere"}, "no environment 'Nowhere'"),
        ({"reward": "mine.py:reward"}, "takes no --reward"),
        ({"dataset": "openai/gsm8k"}, "takes no --dataset"),
        ({"invalid_penalty": -1.0}, "--invalid-penalty must be 0 or more"),
        ({"max_turns": 0}, "--max-turns must be 1 or more"),
        ({"env": "FrozenLake-v1?size=0"}, "size=0"),
    ],
)
def test_wrong_settings_are_one_clear_sentence(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(LayerpickError, match=message):
        task(**chosen).check()


def test_the_fingerprint_is_the_worlds(tmp_path: Path) -> None:
    file = tmp_path / "half.py"
    file.write_text(BROKEN)
    prints = [
        task(env=env).fingerprint()
        for env in ("Taxi-v4", "Taxi-v4?is_rainy=true", f"{file}:Half", f"{file}:Never")
    ]
    assert len(set(prints)) == 4
    assert task(env=f"{file}:Half?timeout=3").fingerprint() == prints[2]
    file.write_text(BROKEN + "\n# changed")
    assert task(env=f"{file}:Half").fingerprint() != prints[2]
