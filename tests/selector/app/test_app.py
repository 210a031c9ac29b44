import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerpick.selector.app.app import app, run
from layerpick.selector.app.entry import main

MAIN = "from layerpick.selector.app.entry import main; main()"
COMMANDS = [command.name for command in app.registered_commands]


@pytest.fixture
def layerpick(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["layerpick", *arguments])
        code = run()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_suggest_prints_a_table_and_writes_its_files(layerpick, arguments, tmp_path):
    code, out, _ = layerpick(*arguments)
    assert code == 0
    written = json.loads((tmp_path / "out" / "suggestion.json").read_text())
    assert f"Pick: layer {written['pick']} of 3" in out
    for layer in written["layers"]:
        assert f"{layer['predicted']:.2f}" in out
    picture = (tmp_path / "out" / "profile.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "profile.png",
        "report.html",
        "suggestion.json",
    ]


def test_json_is_alone_on_stdout(layerpick, arguments, tmp_path):
    code, out, _ = layerpick(*arguments, "--json")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "out" / "suggestion.json").read_text())


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (["--probes", "tarot"], 2, "tarot"),
        (["--device", "cuda:99"], 2, "cuda:99"),
        (["--temperature", "0"], 2, "--temperature"),
        (["--dataset", "nothing.jsonl"], 2, "nothing.jsonl"),
        (["--template", "no field"], 2, "{prompt}"),
        (["--reward", "nothing.py:f"], 2, "nothing.py"),
        (["--rollouts", "nothing.safetensors"], 2, "nothing.safetensors"),
        (["--revision", "main"], 2, "--revision"),
        (["--device", "meta"], 2, "The device 'meta' holds no numbers"),
        (["--stop", ""], 2, "--stop ''"),
        (["--rollouts", "r", "--save-rollouts", "s"], 2, "leave it out with --rollouts"),
    ],
)
def test_mistakes_are_one_sentence_on_stderr(layerpick, arguments, extra, code, said):
    got, out, err = layerpick(*arguments, *extra)
    (line,) = [text for text in err.splitlines() if text.startswith("Error: ")]
    assert (got, out) == (code, "")
    assert said in line and line.endswith(".")
    assert "Traceback" not in err


def test_no_signal_exits_with_three(layerpick, arguments, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def even(completions, **_):\n    return [0] * len(completions)"
    )
    code, _, err = layerpick(*arguments)
    assert code == 3 and "nothing for RL to learn from" in err
    assert not (tmp_path / "out" / "suggestion.json").exists()


def test_wrong_options_are_usage_errors(layerpick):
    assert layerpick("suggest", "--prompts", "0")[0] == 2
    assert layerpick("sugest")[0] == 2


def test_out_that_cannot_be_written(layerpick, arguments, tmp_path):
    (tmp_path / "file").write_text("in the way")
    arguments[arguments.index("--out") + 1] = str(tmp_path / "file" / "out")
    code, _, err = layerpick(*arguments)
    assert code == 2 and "Cannot write" in err


def test_tasks_lists_all_three(layerpick):
    code, out, _ = layerpick("tasks")
    assert code == 0 and all(f"{name}: " in out for name in ("math", "code", "agentic"))
    assert [info["name"] for info in json.loads(layerpick("tasks", "--json")[1])] == [
        "math",
        "code",
        "agentic",
    ]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_explains_itself_without_importing_torch(command):
    arguments = [command, "--help"] if command else ["--help"]
    script = (
        "import sys; sys.argv = ['layerpick', *sys.argv[1:]]\n"
        "from layerpick.selector.app.app import run\n"
        "assert run() == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if command:
        assert f"layerpick {command}" in done.stdout and "Example" in done.stdout


def begun(script: str, *arguments: str) -> subprocess.Popen:
    """A process that has said `begun`, and in which Ctrl-C works as in a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell's background job hands down an ignored signal; a person's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def said(process: subprocess.Popen) -> tuple[int, str, str]:
    """Its exit code, and what else it said."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


QUIETLY = "Interrupted; nothing half-written is left behind."
BEGIN = "print('begun', flush=True)\n"


@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.5, 4.0, 6.0])
def test_ctrl_c_leaves_nothing_behind(arguments, tmp_path, seconds):
    slow = ("--prompts", "1200", "--group-size", "16", "--probes", "weights,training")
    script = (
        "from layerpick.selector.app import entry\n"
        "keep = entry.keep_interrupts\n"
        "def kept():\n"
        "    keep()\n"
        f"    {BEGIN}"
        "entry.keep_interrupts = kept\n"
        "entry.main()\n"
    )
    process = begun(script, *arguments, *slow)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    code, _, err = said(process)
    out: Path = tmp_path / "out"
    assert not out.exists() or not list(out.iterdir())
    assert code == 130
    assert "Traceback" not in err, err
    assert err.splitlines()[-1] == QUIETLY


INTERRUPTED_THERE = {
    # Python only reports an exception in a weak reference's callback, and goes on.
    "callback": (
        "    watched = Watched()\n"
        "    kept = weakref.ref(watched, lambda _: signal.raise_signal(signal.SIGINT))\n"
        "    del watched\n"
    ),
    # C code that sets a module up may clear an exception, or make another of it.
    "extension": (
        "    def press(event, arguments):\n"
        "        if event == 'import' and '_multiarray_umath' in str(arguments[1]):\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "    sys.addaudithook(press)\n"
        "    import numpy\n"
    ),
}


@pytest.mark.parametrize("place", INTERRUPTED_THERE)
def test_no_ctrl_c_is_lost(place):
    script = (
        "import signal, sys, time, weakref\n"
        "from layerpick.selector.app import app, entry, interrupts\n"
        "interrupts.AGAIN = 1.0\n"
        "class Watched: pass\n"
        "def work():\n"
        f"{INTERRUPTED_THERE[place]}"
        f"    {BEGIN}"
        "    time.sleep(50)\n"
        "app.run = work\n"
        "entry.main()\n"
    )
    assert said(begun(script)) == (130, "", QUIETLY + "\n")


@pytest.mark.parametrize("option", ["--stop=\ud800", "--pad-token=a\udcff", "--out=\udc80"])
def test_arguments_that_are_no_text_are_refused(option, capsys):
    assert run(["suggest", option]) == 2
    said = capsys.readouterr().err
    assert "is not UTF-8 text" in said and "Traceback" not in said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_few_signs_gets_its_tables(arguments, monkeypatch, encoding):
    for command in (
        arguments,
        ["probes"],
        ["tasks"],
        ["zoo", "list"],
        ["rollouts", *arguments[1:10]],
    ):
        out = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", out)
        assert run(command) == 0
        printed = out.buffer.getvalue().decode(encoding)
        assert len(printed) > 200, command


@pytest.mark.parametrize("command", ["tasks", "suggest --help"])
def test_standard_output_that_is_full_is_said(command):
    with Path("/dev/full").open("w") as full:
        said = subprocess.run(
            [sys.executable, "-c", MAIN, *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert said.returncode == 2
    assert said.stderr.startswith("Error: ") and said.stderr.count("\n") == 1
    assert "No space left on device" in said.stderr


def test_standard_output_may_be_closed():
    said = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" tasks --json >&-', sys.executable, MAIN],
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stderr) == (0, "")


def test_the_answer_is_there_even_where_nothing_can_be_written(layerpick, arguments, tmp_path):
    (tmp_path / "file").write_text("no folder")
    code, out, err = layerpick(*arguments, "--json", "--out", str(tmp_path / "file" / "out"))
    assert code == 2 and "Cannot write" in err and 0 <= json.loads(out)["pick"] < 3


def test_a_mistake_of_ours_keeps_its_traceback_and_asks_to_be_reported(monkeypatch, capsys):
    def broken():
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("layerpick.selector.app.app.run", broken)
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert said.startswith("Traceback") and "ZeroDivisionError: a bug" in said
    assert "please report it" in said.splitlines()[-1]
