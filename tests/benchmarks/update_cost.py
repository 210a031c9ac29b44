"""What an update costs: one layer in the middle against all parameters, on the same batch.

    .venv/bin/python tests/benchmarks/update_cost.py [MODEL] [--rows 8] [--length 128] [--repeats 5]
        [--gradient-checkpointing]

MODEL is the built-in math model unless given. An update is loss, gradient and AdamW step by TRL,
on `rows` completions of random tokens of `length` after a prompt of 16. Every configuration has a
process of its own. Seconds are wall time on a GPU and processor time on a CPU; peak memory is the
GPU's, or on a CPU that of the process beyond what it held once the model was loaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

PROMPT = 16


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--layer", help=argparse.SUPPRESS)
    return parser.parse_args()


class Peak:
    """The most memory of this process while it runs, looked at every millisecond."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._start = self.bytes = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self.bytes = max(self.bytes, self._process.memory_info().rss)

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self.bytes - self._start


def one(chosen: argparse.Namespace) -> dict[str, float]:
    """Measure one configuration in this process."""
    import numpy as np
    import torch

    from layerpick.selector.prepare import prepare
    from layerpick.selector.settings import (
        HeldOutChoice,
        ModelChoice,
        RlSettings,
        SamplingChoice,
        TaskSettings,
    )
    from layerpick.selector.training_run.run import make_bench
    from layerpick.training.models.freezing import freeze, no_graph_below, optimizer_bytes
    from layerpick.training.runs.folder import RunFolder
    from layerpick.training.trl.run import TrlSettings, make_trainer

    settings = TaskSettings(dataset="reasoning-gym:chain_sum", template="{expression}=")
    sampling = SamplingChoice(max_new_tokens=chosen.length)
    prepared = prepare(ModelChoice(chosen.model), "math", settings, sampling)
    rl = RlSettings(steps=1, prompts=chosen.rows // 2, group_size=2)
    bench = make_bench(prepared, None, rl, HeldOutChoice(2))
    model = bench.model
    middle = len(model.layers) // 2
    layers = None if chosen.layer == "all" else (middle,)
    trainable = freeze(model, layers)
    generator = np.random.default_rng(0)

    def tokens(columns: int) -> torch.Tensor:
        ids = generator.integers(100, len(model.tokenizer) - 1, (chosen.rows, columns))
        return torch.from_numpy(ids).to(model.device)

    ids = {"prompt_ids": tokens(PROMPT), "completion_ids": tokens(chosen.length)}
    batch = {
        **ids,
        "prompt_mask": torch.ones_like(ids["prompt_ids"]),
        "completion_mask": torch.ones_like(ids["completion_ids"]),
        "advantages": torch.linspace(-1, 1, chosen.rows, device=model.device),
    }
    with tempfile.TemporaryDirectory() as folder, no_graph_below(model.model):
        run = TrlSettings(layers, 1e-5, gradient_checkpointing=chosen.gradient_checkpointing)
        trainer = make_trainer(bench, run, trainable, RunFolder(Path(folder)))
        network = trainer.model
        if chosen.gradient_checkpointing:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        network.train()
        optimizer = trainer.create_optimizer()
        cuda = model.device.type == "cuda"
        # On a CPU that others use too, the process's own time is the fairer one.
        clock = time.perf_counter if cuda else time.process_time

        def update() -> float:
            start = clock()
            trainer._gradient(network, batch, parts=1)
            optimizer.step()
            if cuda:
                torch.cuda.synchronize()
            return clock() - start

        peak = Peak()
        update()
        grown = peak.stop()
        seconds = [update() for _ in range(chosen.repeats)]
    return {
        "layer": -1 if layers is None else middle,
        "parameters": trainable.count,
        "seconds": statistics.median(seconds),
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else grown,
        "optimizer_bytes": optimizer_bytes(optimizer),
    }


def main() -> None:
    chosen = arguments()
    if chosen.layer:
        warnings.simplefilter("ignore")
        print(json.dumps(one(chosen)))
        return
    results = {}
    for layer in ("middle", "all"):
        command = [sys.executable, __file__, *sys.argv[1:], "--layer", layer]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[layer] = json.loads(lines.splitlines()[-1])
        found = results[layer]
        name = "all parameters" if layer == "all" else f"layer {found['layer']}"
        print(
            f"{name}: {found['parameters']:,} parameters, {found['seconds']:.3f} s, peak "
            f"{found['peak_bytes'] / 1e6:.0f} MB, optimizer {found['optimizer_bytes'] / 1e6:.1f} MB"
        )
    for what in ("seconds", "peak_bytes"):
        print(f"{what}, share of full: {results['middle'][what] / results['all'][what]:.2f}")


if __name__ == "__main__":
    main()
