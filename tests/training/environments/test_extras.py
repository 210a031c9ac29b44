"""TextWorld and ALFWorld, played for real where they are installed; what is said where not."""

import json
import sys
from pathlib import Path

import pytest

from layerpick.training.environments.base import WorldStep
from layerpick.training.environments.table import make_world
from layerpick.training.errors import LayerpickError


@pytest.mark.parametrize("name", ["textworld:tw-simple", "alfworld"])
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)
    monkeypatch.setitem(sys.modules, "textworld.challenges", None)
    with pytest.raises(LayerpickError, match=r"pip install 'layerpick\[(textworld|alfworld)\]'"):
        make_world(name)


def test_textworld_games_are_generated_played_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("textworld")
    monkeypatch.setenv("LAYERPICK_CACHE", str(tmp_path))
    spec = "textworld:tw-coin_collector?level=2&games=1"
    world, twin = make_world(spec), make_world(spec)
    first = world.reset(0)
    [kept] = tmp_path.rglob("game.z8")
    made = kept.stat().st_mtime_ns
    assert twin.reset(8) == first  # one game for each split: even seeds play game 0
    assert kept.stat().st_mtime_ns == made and twin.reset(1) != first
    walkthrough = json.loads(kept.with_suffix(".json").read_text())["metadata"]["walkthrough"]
    assert world.step("fly away") == WorldStep(first, 0.0, done=False, valid=False)
    steps = [world.step(f"Hm.\n{command.upper()}") for command in walkthrough]
    assert [step.reward for step in steps] == [0.0, 1.0]
    assert [step.done for step in steps] == [False, True]
    assert "take coin" in steps[0].observation and "\n>" not in steps[0].observation
    world.close()
    twin.close()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("textworld:tw-chess", "no game 'tw-chess'; write one of .*textworld:tw-simple"),
        ("textworld:tw-cooking?salt=1", "unrecognized arguments: --salt=1"),
        ("textworld:tw-cooking?go=5", "invalid choice"),
        ("textworld:tw-simple?games=none", "games=none"),
    ],
)
def test_wrong_textworld_options_are_named(spec: str, message: str) -> None:
    pytest.importorskip("textworld")
    with pytest.raises(LayerpickError, match=message):
        make_world(spec)


MUG_PROBLEM = """
(define (problem mug) (:domain alfred)
 (:objects agent1 - agent DeskType DrawerType - rtype MugType - otype
   loc_bar_0 loc_bar_1 loc_bar_2 - location Desk_bar_1 Drawer_bar_1 - receptacle Mug_bar_1 - object)
 (:init (= (total-cost) 0) (receptacleType Desk_bar_1 DeskType)
   (receptacleType Drawer_bar_1 DrawerType) (objectType Mug_bar_1 MugType)
   (canContain DeskType MugType) (canContain DrawerType MugType) (pickupable Mug_bar_1)
   (openable Drawer_bar_1) (atLocation agent1 loc_bar_0) (receptacleAtLocation Desk_bar_1 loc_bar_1)
   (receptacleAtLocation Drawer_bar_1 loc_bar_2) (inReceptacle Mug_bar_1 Drawer_bar_1))
 (:goal (exists (?o - object ?r - receptacle)
   (and (objectType ?o MugType) (receptacleType ?r DeskType) (inReceptacle ?o ?r)))))
"""


def test_alfworld_games_are_played_by_split(tmp_path: Path) -> None:
    alfworld = pytest.importorskip("alfworld")
    pytest.importorskip("fast_downward")
    logic = Path(alfworld.__file__).parent / "data"
    games = {"train/a": True, "train/b": False, "train/movable": True, "valid_seen/c": True}
    for place, solvable in games.items():
        folder = tmp_path / "json_2.1.1" / place
        folder.mkdir(parents=True)
        grammar = (logic / "alfred.twl2").read_text().replace("UNKNOWN GOAL", f"do {place}")
        game = {"pddl_domain": (logic / "alfred.pddl").read_text(), "grammar": grammar}
        game |= {"pddl_problem": MUG_PROBLEM, "solvable": solvable}
        (folder / "game.tw-pddl").write_text(json.dumps(game))
    world = make_world(f"alfworld?data={tmp_path}")
    assert "do valid_seen/c" in world.reset(1)
    first = world.reset(2)  # train/b has no solution
    assert first == world.reset(0)
    assert "desk 1" in first and "do train/a" in first and "Commands: go to desk 1" in first
    assert world.step("take mug 1") == WorldStep(first, 0.0, done=False, valid=False)
    path = ["go to drawer 1", "open drawer 1", "take mug 1 from drawer 1", "go to desk 1"]
    steps = [world.step(command) for command in [*path, "move mug 1 to desk 1"]]
    assert [step.reward for step in steps] == [0.0] * 4 + [1.0]
    assert [step.done for step in steps] == [False] * 4 + [True]
    assert all(step.valid for step in steps)
    world.close()
    with pytest.raises(LayerpickError, match=r"no ALFWorld games .*alfworld-download"):
        make_world(f"alfworld?data={tmp_path}&heldout=valid_unseen")
