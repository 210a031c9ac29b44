"""What layerpick costs on one GPU: a campaign on random weights, as JSON. About 25 minutes.

    .venv/bin/python tests/benchmarks/gpu.py [--shapes smollm2-135m,qwen3-0.6b,qwen3-4b]
        [--parts decode,step,suggest,train] [--out gpu.json] [--small]

Models are made from their configs alone, in bfloat16, so nothing is fetched; rewards are the parity
of a checksum of what was written, so half of the samples earn one. Parts: tokens a second of our
decoder against `generate`, each with and without torch.compile; a step of a sweep against TRL's
step of one layer; the probes of every level; `train` of the middle layer by both engines (goal for
the shape of Qwen3-4B: at most 22 GB). Memory is the GPU's peak, or on a CPU that of the process.
A part that fails is recorded with its reason, and the others go on. `--small` shrinks everything,
to try the script on a CPU in seconds, and compiles nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from layerpick.calibration.predictors.levels import LEVELS
from layerpick.probes.base import ProbeInput
from layerpick.probes.run import peak_memory, run_probe
from layerpick.probes.table import PROBES
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.engine import run as own
from layerpick.training.engine.loop import StageSeconds
from layerpick.training.engine.loop import train as train_stacked
from layerpick.training.engine.stacked import SingleLayerPolicies
from layerpick.training.episodes.decoding import Decoder
from layerpick.training.episodes.play import SamplingSettings
from layerpick.training.episodes.rollouts import sample_rollouts
from layerpick.training.episodes.scoring import held_out
from layerpick.training.models.layers import find_decoder_layers
from layerpick.training.models.loading import LoadedModel, ModelIdentity
from layerpick.training.runs.folder import RunFolder
from layerpick.training.settings import RlSettings
from layerpick.training.sweeps.multiplexed import Bench, device_name
from layerpick.training.tasks.base import Prompt, SingleTurnTask
from layerpick.training.tasks.settings import TaskSettings
from layerpick.training.trl import run as trl

PARTS = ("decode", "step", "suggest", "train")
RATE = 1e-5
QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "head_dim": 128, "tie_word_embeddings": True}
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "qwen3-0.6b": {
        **QWEN3,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    "qwen3-4b": {
        **QWEN3,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
SMALL = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@dataclass(frozen=True)
class Size:
    """How much is sampled and trained."""

    prompts: int
    group_size: int
    prompt_tokens: int
    new_tokens: int
    steps: int
    stacked: int
    """Single-layer policies of a sweep's pass."""


LARGE_SIZE = Size(8, 8, 128, 128, steps=2, stacked=6)
SMALL_SIZE = Size(4, 4, 8, 4, steps=1, stacked=2)


class Parity(SingleTurnTask):
    """Rewards a completion by the parity of its checksum."""

    name = source = "parity"

    def __init__(self, prompt_tokens: int):
        super().__init__(TaskSettings())
        self._tokens = prompt_tokens

    def prompts(self, split: str, count: int, seed: int) -> tuple[Prompt, ...]:
        """Words of the vocabulary, none of them special."""
        words = torch.randint(2, 300, (count, self._tokens)).tolist()
        return tuple(
            Prompt(" ".join(f"w{word}" for word in row), {}, f"{split} {seed} {index}")
            for index, row in enumerate(words)
        )

    def rewards(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """0 or 1."""
        return [float(zlib.crc32(text.encode()) % 2) for text in completions]

    def fingerprint(self) -> str:
        """One data set only."""
        return self.name


def random_model(name: str, small: bool, device: torch.device, folder: Path) -> LoadedModel:
    """A model of that shape with weights as they are before any training, kept in a folder."""
    shape = {**SHAPES[name], **(SMALL if small else {})}
    config = AutoConfig.for_model(**shape, pad_token_id=0, eos_token_id=1, bos_token_id=None)
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.eval().requires_grad_(False)
    model.save_pretrained(folder)
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, shape["vocab_size"])}}
    inner = Tokenizer(WordLevel(words, unk_token="<eos>"))
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    identity = ModelIdentity(str(folder), None, "0" * 64)
    return LoadedModel(model, tokenizer, find_decoder_layers(model), identity, folder)


def make_bench(model: LoadedModel, size: Size) -> Bench:
    """What every part works on."""
    task = Parity(size.prompt_tokens)
    return Bench(
        model=model,
        task=task,
        algorithm=make_algorithm("grpo"),
        sampling=SamplingSettings(size.new_tokens, 1.0, (), 4096),
        settings=RlSettings(steps=size.steps, prompts=size.prompts, group_size=size.group_size),
        heldout=held_out(task, 2, 1),
        learning_rates=(RATE,),
    )


def timed(device: torch.device, run: Callable[[], Any]) -> tuple[Any, float]:
    """What `run` returns, and its seconds, the GPU's work included."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    result = run()
    synchronize()
    return result, time.perf_counter() - start


def decode(bench: Bench, size: Size) -> dict[str, float]:
    """Tokens a second of our decoder and of `generate`, as they are and compiled."""
    model = bench.model
    rows = size.prompts * size.group_size
    asked = torch.randint(2, 300, (rows, size.prompt_tokens), device=model.device)
    found = {}

    def ours() -> None:
        decoder = Decoder(model.model, model.tokenizer.pad_token_id, rows)
        logits = decoder.extend(asked.tolist())
        for _ in range(size.new_tokens - 1):
            logits = decoder.extend(logits.argmax(dim=-1, keepdim=True).tolist())

    def theirs() -> None:
        model.model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=size.new_tokens,
            min_new_tokens=size.new_tokens,
            do_sample=False,
        )

    plain = model.model.forward
    for compiled in (False, True) if size is LARGE_SIZE else (False,):
        if compiled:
            model.model.forward = torch.compile(plain, dynamic=True)
        try:
            for name, run in (("decoder", ours), ("generate", theirs)):
                run()
                _, seconds = timed(model.device, run)
                found[f"{name}{'_compiled' if compiled else ''}"] = rows * size.new_tokens / seconds
        finally:
            model.model.__dict__.pop("forward", None)
    return found


def step(bench: Bench, size: Size) -> dict[str, float]:
    """Seconds of one step of stacked policies, and of TRL's step of one of their layers."""
    count = len(bench.model.layers)
    layers = sorted({round(i * (count - 1) / (size.stacked - 1)) for i in range(size.stacked)})
    spent = StageSeconds()

    def stacked() -> None:
        policies = SingleLayerPolicies(bench.model, layers)
        train_stacked(
            policies,
            bench.model,
            bench.task,
            bench.algorithm,
            bench.sampling,
            bench.settings,
            RATE,
            seed=0,
            spent=spent,
        )

    _, seconds = timed(bench.model.device, stacked)
    alone = trained(bench, trl.TrlSettings((layers[len(layers) // 2],), RATE), trl.train)
    one = seconds / size.steps
    return {
        "policies": len(layers),
        "stacked_seconds": one,
        "stacked_sampling_seconds": spent.sampling / size.steps,
        "trl_seconds_a_layer": alone["seconds"],
        "times_faster": len(layers) * alone["seconds"] / one,
    }


def suggest(bench: Bench, size: Size) -> dict[str, Any]:
    """Seconds and peak memory of sampling and of each probe, and the seconds of each level."""
    rollouts, sampling = timed(
        bench.model.device,
        lambda: sample_rollouts(
            bench.model,
            bench.task,
            prompts=size.prompts,
            group_size=size.group_size,
            sampling=bench.sampling,
            seed=0,
        ),
    )
    probe_input = ProbeInput(
        bench.model,
        rollouts,
        bench.algorithm,
        0,
        RATE,
        task=bench.task,
        sampling=bench.sampling,
    )
    probes: dict[str, Any] = {}
    levels: dict[str, float] = {}
    for level in LEVELS.values():
        for name in level.probes:
            if name not in probes:
                result = run_probe(PROBES[name](), probe_input)
                probes[name] = {
                    "seconds": result.cost.seconds,
                    "peak_bytes": result.cost.peak_bytes,
                    "failure": result.failure,
                }
        levels[level.name] = sum(probes[name]["seconds"] for name in level.probes)
    return {"sampling_seconds": sampling, "probes": probes, "levels": levels}


def train(bench: Bench, size: Size) -> dict[str, Any]:
    """A step of the middle layer by each engine, with its peak memory."""
    layers = (len(bench.model.layers) // 2,)
    return {
        "trl": trained(bench, trl.TrlSettings(layers, RATE), trl.train),
        "own": trained(bench, own.OwnSettings(layers, RATE), own.train),
    }


def trained(bench: Bench, settings: Any, run: Callable[..., Any]) -> dict[str, float]:
    """Seconds of one step, sampling apart, and the peak memory of the whole run."""
    if bench.model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        cost = run(bench, settings, RunFolder(Path(folder)))
    return {
        "seconds": (cost.sampling_seconds + cost.update_seconds) / cost.steps,
        "sampling_seconds": cost.sampling_seconds / cost.steps,
        "peak_bytes": peak_memory(bench.model.device),
    }


def measure(shape: str, parts: Sequence[str], small: bool, device: torch.device) -> dict[str, Any]:
    """All parts of one shape; a part that fails leaves its reason."""
    size = SMALL_SIZE if small else LARGE_SIZE
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = make_bench(random_model(shape, small, device, Path(folder)), size)
        for name in parts:
            part = {"decode": decode, "step": step, "suggest": suggest, "train": train}[name]
            start = time.perf_counter()
            try:
                found[name] = part(bench, size)
            except Exception as error:
                found[name] = {"failure": f"{type(error).__name__}: {error}"}
            found[name]["part_seconds"] = time.perf_counter() - start
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
            print(f"{shape} {name}: {found[name]['part_seconds']:.0f} s", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for and write it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict[str, Any] = {"device": device_name(device), "torch": torch.__version__}
    for shape in options.shapes.split(","):
        result[shape] = measure(shape, options.parts.split(","), options.small, device)
        # After each shape, so that what was measured survives what comes after it.
        options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
