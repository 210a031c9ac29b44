"""`accelerate launch` with two CPU processes (gloo): what one process would have done."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from layerpick.training.models.freezing import freeze
from layerpick.training.processes import ALONE, Processes
from layerpick.training.runs.folder import DELTA_FILE, RunFolder
from layerpick.training.trl.run import TrlSettings, make_trainer
from layerpick.training.trl.trainer import _tell_what_is_trained

SHARDED = Path(__file__).parent / "sharded_on_cpu.py"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
LAUNCH += ["--main_process_port", "0"]  # any that is free
KINDS = {
    "one": [sys.executable, "-m", "layerpick"],
    "ddp": [*LAUNCH, "--multi_gpu", "-m", "layerpick"],
    "fsdp2": [*LAUNCH, "--use_fsdp", "--fsdp_version", "2", str(SHARDED)],
}
OPTIONS = ["--steps", "4", "--prompts", "4", "--group-size", "4", "--heldout-prompts", "6"]
OPTIONS += ["--heldout-samples", "2", "--device", "cpu", "--checkpoint-every", "2"]


def command(kind: str, out: Path, *options: str) -> list[str]:
    return [*KINDS[kind], "train", *OPTIONS, *options, "--out", str(out)]


def train(kind: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(kind, out, *options), capture_output=True, text=True, check=False)


def largest_difference(first: Path, second: Path) -> float:
    ours, theirs = (load_file(path / DELTA_FILE) for path in (first, second))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def test_shares_cover_everything_once_and_in_order():
    for count in (1, 2, 3, 5):
        shares = [Processes(rank, count).share(7) for rank in range(count)]
        assert [i for share in shares for i in range(7)[share]] == list(range(7))
    assert ALONE.gather([1, 2]) == [1, 2]


class Server:
    """Stands for vLLM's HTTP client: keeps what it is sent."""

    def __init__(self):
        self.sent = []

    def update_named_params(self, metadata, parameters):
        sent = list(parameters)
        assert [
            (n, str(p.dtype).removeprefix("torch."), list(p.shape)) for n, p in sent
        ] == metadata
        self.sent.append(dict(sent))

    def reset_prefix_cache(self):
        pass


@pytest.mark.parametrize("layers", [(1,), None])
def test_vllm_is_sent_what_is_trained(tiny, make_bench, tmp_path, layers):
    """TRL's own synchronisation, with a client that keeps what it would send."""
    from trl.generation.vllm_generation import VLLMGeneration

    bench = make_bench(tiny("llama"))
    trainable = freeze(bench.model, layers)
    trainer = make_trainer(bench, TrlSettings(layers, 1e-3), trainable, RunFolder(tmp_path))
    generation = VLLMGeneration.__new__(VLLMGeneration)
    generation.mode, generation.accelerator = "server", trainer.accelerator
    generation._weight_metadata, generation.vllm_client = None, Server()
    generation.model, generation._dist = trainer.model, trainer._dist
    _tell_what_is_trained(generation, trainer._trained_weights)
    for _ in range(3):
        generation.sync_weights()
    everything, first, second = generation.vllm_client.sent
    # The server may hold what an earlier run has trained.
    assert everything.keys() == dict(trainer.model.named_parameters()).keys()
    assert first.keys() == second.keys() == trainable.parameters.keys()
    assert all(torch.equal(first[name], value) for name, value in trainable.parameters.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.parametrize(
    "options", [["--layer", "3"], ["--layer", "all", "--beta", "0.02", "--learning-rate", "2e-5"]]
)
def test_two_processes_train_what_one_trains(tmp_path, kind, options):
    if kind == "ddp":
        options = [*options, "--micro-batch", "4"]
    alone, together = (
        train("one", tmp_path / "one", *options),
        train(kind, tmp_path / "two", *options),
    )
    assert alone.returncode == together.returncode == 0, together.stderr
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-5
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    assert together.stdout.count("Score on") == 1
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    for score in ("base", "trained"):
        assert results[0][score]["by_prompt"] == results[1][score]["by_prompt"]
    assert [s.values["reward"] for s in RunFolder(tmp_path / "one").metrics()] == pytest.approx(
        [s.values["reward"] for s in RunFolder(tmp_path / "two").metrics()]
    )
    # The delta is an ordinary one.
    apply = [sys.executable, "-m", "layerpick", "apply", str(tmp_path / "two")]
    done = subprocess.run([*apply, "--out", str(tmp_path / "merged")], capture_output=True)
    assert done.returncode == 0 and (tmp_path / "merged" / "README.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_that_are_killed_go_on(tmp_path, kind):
    options = ["--layer", "3", "--steps", "16"]
    assert train(kind, tmp_path / "whole", *options).returncode == 0
    process = subprocess.Popen(
        command(kind, tmp_path / "killed", *options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list((tmp_path / "killed").glob("checkpoint-*")) and process.poll() is None:
        time.sleep(0.01)
    for member in [*psutil.Process(process.pid).children(recursive=True), process]:
        member.kill()
    process.wait()
    assert not (tmp_path / "killed" / "result.json").exists()
    again = train(kind, tmp_path / "killed", *options)
    assert again.returncode == 0 and "Going on from step" in again.stderr
    assert largest_difference(tmp_path / "whole", tmp_path / "killed") < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_an_error_of_one_process_ends_all_with_one_sentence(tmp_path, kind):
    """The reward breaks in the second process only, in its second step."""
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "calls = []\n"
        "def score(completions, **_):\n"
        "    calls.append(1)\n"
        "    if os.environ['RANK'] == '1' and len(calls) == 3:\n"
        "        raise ValueError('no more')\n"
        "    return [float(len(text) % 2) for text in completions]\n"
    )
    reward = f"{tmp_path / 'mine.py'}:score"
    done = train(kind, tmp_path / "run", "--layer", "3", "--reward", reward)
    assert done.returncode != 0
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "no more" in told
    uneven = train(kind, tmp_path / "other", "--layer", "3", "--prompts", "5")
    assert uneven.returncode != 0
    assert uneven.stderr.count("Error: --prompts 5 must be a multiple of the 2 processes.") == 1
