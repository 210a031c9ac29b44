"""`layerpick race` on the built-in model, as a user runs it."""

from __future__ import annotations

import json

import layerpick
from layerpick.selector.race.settings import RaceChoice
from layerpick.selector.settings import HeldOutChoice, RlSettings


def test_a_race_ends_with_its_winner_trained_and_can_be_asked_again(tmp_path):
    race = {
        "rl": RlSettings(steps=10, prompts=4, group_size=4),
        "heldout": HeldOutChoice(12, 2),
        "choice": RaceChoice(race_budget=2.0),
        "sweeps": tmp_path / "sweeps",
        "out": tmp_path / "race",
    }
    outcome = layerpick.race(task="math", **race)
    result = outcome.result
    assert 1 <= result.cost <= len(result.arms)
    winner = next(arm for arm in result.arms if arm.layer == result.winner)
    assert winner.steps == 10 and winner.score is not None
    assert all(arm.score is None for arm in result.arms if arm.steps < 10)
    stored = json.loads((tmp_path / "race" / "result.json").read_text())
    assert stored["winner"] == result.winner and 0 <= stored["chance_missed"] <= 1
    trained = layerpick.load_with_delta(outcome.winner.path)
    assert trained is not None
    again = layerpick.race(task="math", **race).result
    assert again.winner == result.winner and again.cost == result.cost
    assert list((tmp_path / "sweeps").rglob(f"layer{result.winner:03d}-*.json"))
