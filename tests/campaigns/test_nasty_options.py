"""Every option of every command with a table of nasty values: a sentence, or the truth.

Commands run in this process, as typed. A case ends with exit code 0, 2 or 3, or where work begins:
at the first forward pass of a model, or after a second of any other work. Of every option as many
values are tried as `NASTY_VALUES` says, 12 unless told otherwise; `FUZZ_SEED` chooses which. Both
are printed, with the number of cases.

Limits: what happens once work has begun is not seen here.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import pytest
from typer.main import get_command

from layerpick.selector.app.app import app
from layerpick.selector.app.app import run as layerpick
from layerpick.training.episodes.decoding import Decoder

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("FUZZ_SEED", "0"))
TRIED = int(os.environ.get("NASTY_VALUES", "12"))
SECONDS = 1.0

NUMBERS = (
    *("nan", "inf", "-1", "0", "-0.0", "1e400", "1e308", "1e-320", "1.5", "", "²", "١", "0x10"),
    *(str(10**20), str(2**31), "9" * 5000, "[/red]", "\ud800"),
)
TEXTS = (
    *NUMBERS,
    *(
        "x",
        " ",
        "a" * 70_000,
        "../x",
        "a,b,,c",
        ",",
        "x=y",
        "=",
        "x=",
        "%",
        "nan%",
        "-5%",
        "1e400%",
    ),
    *("{", "{}", "null", "[" * 100_000, '{"a": NaN}', '{"a": "\ud800"}', "{0}", "{prompt!r:9}"),
    *("missing.py:X", "broken.py:X", "leaves.py:X", "empty.py:X", "\x1b[2J", "all", "auto", "none"),
    *("top:0", "top:-1", f"top:{10**20}", "middle:0", "middle:²", "every:0", "0,0", "0,1,2,3,4,5"),
    *("own", "server", "cuda:99", "meta", "reasoning-gym:x?y=z", "reasoning-gym:chain_sum?seed=x"),
    *(
        "human-eval",
        "FrozenLake-v1?x=²",
        "ray://no:1",
        "rows.parquet",
        "rows.json",
        "code",
        "agentic",
    ),
    *("learning_rate=nan", "bf16=true", "output_dir=/", "num_generations=0", "seed=-1", "optim=x"),
    *("max_steps=-1", "model_init_kwargs={", "fsdp=x", "per_device_train_batch_size=0"),
)
PLACES = (
    *(
        "",
        "no/such",
        "~nouser/x",
        "[/red]",
        "[bold]",
        "\ud800",
        "a" * 300,
        "/dev/null",
        "/dev/full",
    ),
    *(
        ".",
        "file",
        "file/x",
        "folder",
        "loop",
        "pipe",
        "rows.jsonl",
        "\x1b[2J",
        "/proc/self/x",
    ),
)
FILES = {
    "file": "x",
    "rows.jsonl": '{"prompt": "1 + 1 =", "answer": "2"}\n' * 8,
    "rows.json": "[1]",
    "rows.parquet": "x",
    "broken.py": "def",
    "leaves.py": "import sys; sys.exit(0)",
    "empty.py": "",
}


class WorkBeganError(BaseException):
    """No mistake was found in what was given."""


@contextlib.contextmanager
def ended_where_work_begins(seconds: float) -> Iterator[None]:
    """Raise WorkBeganError at a model's first pass, and after so many seconds."""

    def stop(*_: Any) -> None:
        raise WorkBeganError

    def too_late(_: int, frame: FrameType | None) -> None:
        raise WorkBeganError(frame.f_code.co_filename if frame else "")

    whole = Decoder.__init__
    Decoder.__init__ = stop  # type: ignore[method-assign]
    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        Decoder.__init__ = whole  # type: ignore[method-assign]


def typical(made: Path) -> dict[str, list[str]]:
    """Each command with what it cannot do without, and little work."""
    run, suggestion = str(made / "run"), str(made / "suggested" / "suggestion.json")
    small = ["--prompts", "2", "--group-size", "4", "--heldout-prompts", "4", "--steps", "1"]
    small += ["--device", "cpu", "--max-new-tokens", "2"]
    few = ["--prompts", "2", "--max-new-tokens", "2", "--device", "cpu"]
    return {
        "suggest": [*few, "--group-size", "4", "--probes", "weights", "--out", "out"],
        "rollouts": few,
        "train": [*small, "--layer", "3", "--out", "out"],
        "apply": [run, "--out", "out"],
        "export": [suggestion, "--to", "trl", "--out", "out"],
        "vote": [run, run, "--device", "cpu", "--out", "out"],
        "auto": [*small, "--out", "out", "--sweeps", "out"],
        "race": [*small, "--out", "out", "--sweeps", "out"],
        "sweep": [*small, "--lr-grid", "1e-4", "--probes", "none", "--out", "out"],
        "compare": ["shipped", "--out", "out"],
        "verify": [suggestion, "--full", "0.9", "--out", "out"],
        "evaluate": ["--level", "weights", "--out", "out"],
        "calibrate": ["--out", "out"],
        "tasks": [],
        "probes": [],
        "zoo list": [],
        "zoo build": ["qwen2-6-sum-noise", "--zoo", "out"],
        "zoo sweep": ["qwen2-6-sum-noise", "--zoo", "out", "--out", "out"],
    }


def commands() -> dict[str, Any]:
    """By name, as `zoo build`."""
    found: dict[str, Any] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found |= (
            {f"{name} {each}": one for each, one in below.items()} if below else {name: command}
        )
    return found


def nasty(parameter: Any) -> list[list[str]]:
    """Ways to give an option or an argument."""
    if getattr(parameter, "is_flag", False):
        return [[parameter.opts[0]], [f"{parameter.opts[0]}=x"], [f"{parameter.opts[0]}="]]
    kind = parameter.type_descriptor.annotation
    (kind,) = get_args(kind) or (kind,)
    values = {int: NUMBERS, float: NUMBERS, Path: PLACES, str: (*TEXTS, *PLACES)}[kind]
    if parameter.param_type_name == "argument":
        return [["--", value] for value in dict.fromkeys(values)]
    return [[f"{parameter.opts[0]}={value}"] for value in dict.fromkeys(values)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with files and things that are none."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAYERPICK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return tmp_path


def attempt(arguments: list[str], seconds: float) -> tuple[str, str]:
    """What became of a command (its exit code, or `began`), and what it said."""
    out, err = io.StringIO(), io.StringIO()
    kept = sys.stdout, sys.stderr
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            ended_where_work_begins(seconds),
        ):
            end = str(layerpick(arguments))
    except WorkBeganError:
        end = "began"
    except BaseException as error:
        import traceback

        end = "traceback"
        err.write("".join(traceback.format_exception(error)))
    finally:
        sys.stdout, sys.stderr = kept
    return end, err.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suggestion and a run, for the commands that need one."""
    folder = tmp_path_factory.mktemp("made")
    small = ["--prompts", "8", "--group-size", "4", "--device", "cpu"]
    assert layerpick(["suggest", *small, "--out", str(folder / "suggested")]) == 0
    trained = ["--layer", "3", "--steps", "1", "--heldout-prompts", "4", "--engine", "own"]
    assert layerpick(["train", *small, *trained, "--out", str(folder / "run")]) == 0
    return folder


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_sentence_or_the_truth(name: str, made: Path, place: Path) -> None:
    """No traceback, no exit code but those of the README, and a reason for every refusal."""
    generator = random.Random(f"{SEED} {name}")
    usual = typical(made)[name]
    ends: Counter[str] = Counter()
    wrong = []
    for parameter in commands()[name].params:
        values = nasty(parameter)
        for given in generator.sample(values, min(TRIED, len(values))):
            arguments = [*name.split(), *usual, *given]
            end, said = attempt(arguments, SECONDS)
            ends[end] += 1
            refused_in_silence = end in ("2", "3") and not said.strip()
            if end not in ("0", "2", "3", "began") or "Traceback" in said or refused_in_silence:
                wrong.append((given, end, said[-600:]))
            shutil.rmtree(place / "out", ignore_errors=True)
    print(f"{name}: {sum(ends.values())} cases, seed {SEED}, {TRIED} values each: {dict(ends)}")
    assert not wrong, f"{len(wrong)} wrong: {wrong[:4]}"


def test_every_command_is_tried(made: Path) -> None:
    """A command that is added here later cannot be forgotten."""
    assert set(typical(made)) == set(commands())
