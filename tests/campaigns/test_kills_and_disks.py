"""Commands killed at random moments go on; commands whose disk is full say so. `FUZZ_SEED` again.

The disk is a small tmpfs in a mount namespace of the command's own, which takes root.

Limits: a command is killed a few times, at moments that the seed chooses after its files appear.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors import safe_open

from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.predictors.stored import load_predictors
from layerpick.calibration.sweeps.store import read_folder
from layerpick.selector.race.keeping import kept_result
from layerpick.selector.suggestion.result import read_suggestion
from layerpick.training.episodes.rollouts import load_rollouts
from layerpick.training.models.loading import load_model
from layerpick.training.runs.delta import read_delta
from layerpick.training.runs.folder import RunFolder

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("FUZZ_SEED", "0"))
MAIN = "from layerpick.selector.app.entry import main; main()"
FEW = "--device cpu --prompts 2 --group-size 4 --heldout-prompts 4"
SMALL = f"{FEW} --checkpoint-every 1"
RACE = f"{SMALL} --steps 10 --arms 2"
ZOO_MODEL = "llama-4-edit-noise"


def suggested(place: Path) -> None:
    """The suggestion can be read."""
    read_suggestion(place / "suggestion.json")


def trained(place: Path, steps: int = 6) -> None:
    """All steps were taken, once each, and the layer is whole."""
    folder = RunFolder(place)
    result = folder.result()
    assert result is not None and result.cost.steps == steps
    assert [step.step for step in folder.metrics()] == list(range(1, steps + 1))
    read_delta(place)
    assert not list(place.glob("checkpoint-*"))


def raced(place: Path) -> None:
    """The winner took all steps."""
    kept = kept_result(place)
    assert kept is not None
    trained(kept[1].path, 10)
    assert not list(place.glob("checkpoint-*"))


def gone_all_the_way(place: Path) -> None:
    """The suggestion, both runs and the verification are there."""
    suggested(place)
    trained(place / "layer", 3)
    trained(place / "full", 3)
    assert json.loads((place / "verification.json").read_text())["pick"]


def raced_all_the_way(place: Path) -> None:
    """The suggestion, the race and the verification are there."""
    suggested(place)
    raced(place / "race")
    assert json.loads((place / "verification.json").read_text())["pick"]


def swept(place: Path) -> None:
    """Base, full and two layers."""
    (folder,) = place.glob("*/*/")
    assert len(read_folder(folder)) == 4


def merged(place: Path) -> None:
    """A model with its card."""
    load_model(str(place), device="cpu")
    assert (place / "README.md").is_file()


def calibrated(place: Path) -> None:
    """A predictor for every level."""
    assert set(load_predictors(place)) == set(LEVELS)


def built(place: Path) -> None:
    """A model that loads."""
    load_model(str(place / ZOO_MODEL), device="cpu")


@dataclass(frozen=True)
class Command:
    """What is typed before the name of the folder that it writes."""

    typed: str
    check: Callable[[Path], object]
    kills: tuple[str, ...]
    """It is killed soon after a file of each pattern has appeared; of none, after its start."""
    wait: float = 0.0
    """At most so many seconds after its start."""
    disks: tuple[str, ...] = ("4k", "600k")
    """Sizes that are too small."""


SUGGEST = "suggest --device cpu --prompts 4 --group-size 4 --probes weights"
COMMANDS = {
    "suggest": Command(
        f"{SUGGEST} --out", suggested, ("", "suggestion.json"), 8.0, ("4k", "40k", "60k")
    ),
    "rollouts": Command(
        f"{SUGGEST} --out suggested --save-rollouts", load_rollouts, ("", ".out-*"), 8.0, ("4k",)
    ),
    "train": Command(
        f"train --layer 3 --steps 6 {SMALL} --out",
        trained,
        ("run.json", "checkpoint-*", "checkpoint-[3-9]", "*delta*"),
    ),
    "train race": Command(
        f"train --layer race {RACE} --sweeps sweeps --out",
        raced,
        ("suggestion.json", "checkpoint-*", "checkpoint-[5-9]", "winner"),
    ),
    "auto": Command(
        f"auto --with-full --steps 3 {SMALL} --sweeps sweeps --out",
        gone_all_the_way,
        ("suggestion.json", "layer/checkpoint-*", "full/checkpoint-*"),
    ),
    "auto race": Command(
        f"auto --race {RACE} --sweeps sweeps --out",
        raced_all_the_way,
        ("race.json", "checkpoint-*", "verification.json"),
    ),
    "sweep": Command(
        f"sweep --steps 2 --lr-grid 1e-4 --layers 0,3 --probes none {FEW} --out",
        swept,
        ("base-*.json", "full-*.json"),
        disks=("4k",),
    ),
    "apply": Command("apply {run} --out", merged, ("", ".out-*"), 8.0),
    "calibrate": Command("calibrate --out", calibrated, ("", "*.json"), 20.0, ("4k", "400k")),
    "zoo": Command(f"zoo build {ZOO_MODEL} --zoo", built, ("", "tmp*"), 20.0),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained layer."""
    place = tmp_path_factory.mktemp("trained")
    code, said = finish(start(place, *f"train --layer 3 --steps 1 {SMALL} --out run".split()))
    assert code == 0, said
    return place / "run"


def start(place: Path, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A command in a process of its own, its cache in `place` too."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", MAIN, *arguments],
        env={**os.environ, "LAYERPICK_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"},
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and all that was said."""
    said, _ = process.communicate(timeout=900)
    assert "Traceback" not in said, said
    return process.returncode, said


def kill_when(process: subprocess.Popen[str], place: Path, pattern: str, delay: float) -> bool:
    """Kill a command so long after such a file has appeared; whether it was still running."""
    end = time.monotonic() + 600
    while not appeared(place, pattern) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def appeared(place: Path, pattern: str) -> bool:
    """Whether there is such a file; folders may vanish while one looks."""
    with contextlib.suppress(FileNotFoundError):
        return not pattern or any(place.rglob(pattern))
    return False


def nothing_is_half_written(place: Path) -> int:
    """Every file outside of temporary folders can be read; returns how many there are."""
    files = [path for path in place.rglob("*.*") if not temporary(path.relative_to(place))]
    for file in files:
        if file.suffix == ".json":
            json.loads(file.read_text())
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                assert opened.keys(), file
    return len(files)


def temporary(path: Path) -> bool:
    """By its name, or that of a folder above it."""
    return any(part.startswith((".", "tmp")) for part in path.parts)


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_commands_go_on_and_lose_nothing(name: str, run: Path, tmp_path: Path) -> None:
    command, generator = COMMANDS[name], random.Random(f"{SEED} {name}")
    typed, out = [*command.typed.format(run=run).split(), "out"], tmp_path / "out"
    kills = 0
    for pattern in command.kills:
        soon, later = generator.choice((0.0, 0.1, 1.0)), generator.uniform(0, command.wait)
        delay = soon if pattern else later
        if name == "apply" and out.exists():
            break  # it refuses a folder that is there
        kills += kill_when(start(tmp_path, *typed), tmp_path, pattern, delay)
        whole = nothing_is_half_written(tmp_path)
        print(f"{name}, seed {SEED}: {kills} kills, {delay:.1f} s after {pattern!r}; {whole} files")
    if name != "apply" or not out.exists():
        code, said = finish(start(tmp_path, *typed))
        assert code == 0, said
    command.check(out)
    assert kills


@pytest.mark.parametrize("name", COMMANDS)
def test_full_disks_are_said(name: str, run: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can mount a small disk")
    (tmp_path / "disk").mkdir()
    for size in COMMANDS[name].disks:
        shell = f'mount -t tmpfs -o size={size} none disk && exec "$@"'
        before = ("unshare", "--mount", "/bin/sh", "-c", shell, "sh")
        typed = [*COMMANDS[name].typed.format(run=run).split(), "disk/out"]
        code, said = finish(start(tmp_path, *typed, before=before))
        print(f"{name}, {size}: {code}, {said.strip().splitlines()[-1:]}")
        assert code == 2 and "No space left" in said, (name, size, said)
