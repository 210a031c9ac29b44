"""Commands killed at random moments go on; commands whose disk is full say so. `FUZZ_SEED` again.

The disk is a small tmpfs in a mount namespace of the command's own, which takes root.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerpick.calibration.sweeps.store import read_folder
from layerpick.selector.suggestion.result import read_suggestion
from layerpick.training.runs.delta import read_delta
from layerpick.training.runs.folder import RunFolder

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SMALL = ("--device", "cpu", "--prompts", "2", "--group-size", "4", "--heldout-prompts", "4")
TRAIN = ("train", "--layer", "3", "--steps", "6", "--checkpoint-every", "1", *SMALL)
SWEEP = (
    "sweep",
    "--steps",
    "2",
    "--lr-grid",
    "1e-4",
    "--layers",
    "0,3",
    "--probes",
    "none",
    *SMALL,
)
SUGGEST = (
    "suggest",
    "--device",
    "cpu",
    "--prompts",
    "4",
    "--group-size",
    "4",
    "--probes",
    "weights",
)
MAIN = "from layerpick.selector.app.entry import main; main()"


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


def kill_when(process: subprocess.Popen[str], place: Path, pattern: str, delay: float) -> None:
    """Kill a command `delay` seconds after a file of that pattern has appeared."""
    end = time.monotonic() + 600
    while not any(place.rglob(pattern)) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_commands_go_on_and_lose_nothing(tmp_path: Path) -> None:
    generator = random.Random(SEED)
    print("seed", SEED)
    run, sweeps, suggested = tmp_path / "run", tmp_path / "sweeps", tmp_path / "suggested"
    for pattern in ("run.json", "checkpoint-*", "checkpoint-[3-9]"):
        process = start(tmp_path, *TRAIN, "--out", str(run))
        kill_when(process, run, pattern, generator.uniform(0, 1))
    code, said = finish(start(tmp_path, *TRAIN, "--out", str(run)))
    assert code == 0, said
    result = RunFolder(run).result()
    assert result is not None and result.cost.steps == 6
    assert [step.step for step in RunFolder(run).metrics()] == list(range(1, 7))
    read_delta(run)
    for pattern in ("base-*.json", "full-*.json"):
        process = start(tmp_path, *SWEEP, "--out", str(sweeps))
        kill_when(process, sweeps, pattern, generator.uniform(0, 1))
    code, said = finish(start(tmp_path, *SWEEP, "--out", str(sweeps)))
    assert code == 0, said
    (folder,) = sweeps.glob("*/*/")
    assert len(read_folder(folder)) == 4
    process = start(tmp_path, *SUGGEST, "--out", str(suggested))
    kill_when(process, tmp_path, "cache", generator.uniform(0, 8))
    code, said = finish(start(tmp_path, *SUGGEST, "--out", str(suggested)))
    assert code == 0, said
    read_suggestion(suggested / "suggestion.json")
    merged = tmp_path / "merged"
    process = start(tmp_path, "apply", str(run), "--out", str(merged))
    kill_when(process, tmp_path, ".merged-*", 0)
    if not merged.exists():
        code, said = finish(start(tmp_path, "apply", str(run), "--out", str(merged)))
        assert code == 0, said
    assert (merged / "model.safetensors").is_file() and (merged / "README.md").is_file()


def test_full_disks_are_said(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    run = tmp_path / "run"
    code, said = finish(start(tmp_path, *TRAIN, "--out", str(run)))
    assert code == 0, said
    commands = {
        "suggest": (*SUGGEST, "--out", "disk/out"),
        "save": (*SUGGEST, "--save-rollouts", "disk/r.safetensors", "--out", "suggested"),
        "train": (*TRAIN, "--out", "disk/run"),
        "sweep": (*SWEEP, "--out", "disk/sweeps"),
        "apply": ("apply", str(run), "--out", "disk/merged"),
        "printed": ("tasks",),
    }
    for name, command in commands.items():
        for size in ("4k",) if name in ("suggest", "save", "sweep") else ("4k", "600k"):
            mounted = f"mount -t tmpfs -o size={size} none {disk} && "
            shell = mounted + ('exec "$@" >/dev/full' if name == "printed" else 'exec "$@"')
            before = ("unshare", "--mount", "/bin/sh", "-c", shell, "sh")
            code, said = finish(start(tmp_path, *command, before=before))
            print(f"{name}, {size}: {code}, {said.strip().splitlines()[-1:]}")
            assert code == 2 and "No space left" in said, (name, size, said)
