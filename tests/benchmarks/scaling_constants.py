"""The constants of the cost model, measured here, with a check on what they were not fitted to.

Takes about a minute of one thread; seconds are processor time, so that others may use the machine
too. `scaling.py --measure` writes them down.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scaling_model import (
    GROUP,
    ROWS,
    Constants,
    Machine,
    Shape,
    sampling_seconds,
    update_seconds,
)

SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"


def measure(smol: str) -> Constants:
    """All constants, and the check on policies that were not fitted to."""
    import numpy as np
    import torch
    from scipy.optimize import nnls

    from layerpick.training.engine import loop

    torch.set_num_threads(1)
    loop.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[assignment]
    product, bandwidth = _product(torch), _bandwidth(torch)
    points = [(1, 2), (1, 16), (3, 8), (6, 2), (6, 16), (3, 16)]
    small = _prepared(None, 64)
    tokens = small.sampling.max_new_tokens
    seconds = [_step(small, p, prompts)[0] / tokens for p, prompts in points]
    layers = len(small.model.layers)
    design = np.array([[layers, p, p * prompts * GROUP] for p, prompts in points], float)
    (layer, policy, row), _ = nnls(design / np.array(seconds)[:, None], np.ones(len(points)))
    known = Constants(layer, policy, row, 1.0, product, bandwidth, *_rewards(), _record())
    held = _step(small, 6, 8)[0] / tokens
    told = layers * layer + 6 * policy + 6 * 8 * GROUP * row
    print(f"check, built-in model, 6 policies × 64 rows: {told / held:.2f} of measured")
    real = _prepared(smol, 4)
    shape = _shape(real.model.model.config)
    decoding, update, read = _step(real, 4, 2)
    whole = update_seconds(shape, Machine(product, bandwidth, 4), known, 4, read, False)
    known = Constants(**{**asdict(known), "share": whole / update})
    machine = Machine(product, bandwidth, 4)
    decoding, update, read = _step(real, 8, 2)
    told_update = update_seconds(shape, machine, known, 8, read, False)
    written = real.sampling.max_new_tokens
    told_decoding = sampling_seconds(shape, machine, known, 8, 2 * GROUP, written, 24)
    told_decoding += 8 * 2 * 24 * 2 * shape.parameters / (product * known.share)
    print(
        f"check, SmolLM2-135M, 8 policies × 16 rows (fitted to 4): update {told_update:.1f} s, "
        f"measured {update:.1f}; decoding {told_decoding:.1f} s, measured {decoding:.1f}"
    )
    return known


def _prepared(model: str | None, rows: int) -> Any:
    from layerpick.selector.prepare import prepare
    from layerpick.selector.settings import ModelChoice, SamplingChoice, TaskSettings

    settings = TaskSettings()
    sampling = SamplingChoice(batch_size=ROWS)
    if model:
        template = "3 + 5 = 8\n7 - 2 = 5\n{expression} ="
        settings = TaskSettings(dataset=SUMS, template=template, stop=("\n",))
        sampling = SamplingChoice(batch_size=ROWS, max_new_tokens=rows)
    return prepare(ModelChoice(model, device="cpu", dtype="float32"), "math", settings, sampling)


def _step(prepared: Any, policies: int, prompts: int) -> tuple[float, float, float]:
    """Seconds of sampling and of update of one step, and the tokens that one policy reads."""
    from layerpick.training.algorithms.table import make_algorithm
    from layerpick.training.engine.loop import StageSeconds, train
    from layerpick.training.engine.stacked import SingleLayerPolicies
    from layerpick.training.settings import RlSettings

    layers = len(prepared.model.layers)
    chosen = [round(i * (layers - 1) / max(1, policies - 1)) for i in range(policies)]
    best, read = (float("inf"), float("inf")), 0.0
    for _ in range(3 if layers < 10 else 1):
        stacked, spent = SingleLayerPolicies(prepared.model, chosen), StageSeconds()
        (first, *_) = train(
            stacked, prepared.model, prepared.task, make_algorithm("grpo"), prepared.sampling,
            RlSettings(1, prompts, GROUP), 1e-5, seed=0, spent=spent,
        )  # fmt: skip
        best = min(best, (spent.sampling, spent.update))
        read = first.tokens + prompts * 24
    return best[0], best[1], read


def _shape(config: Any) -> Shape:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        config.num_hidden_layers, config.hidden_size, config.intermediate_size,
        config.num_attention_heads, config.num_key_value_heads, head, config.vocab_size,
        bool(config.tie_word_embeddings),
    )  # fmt: skip


def _product(torch: Any) -> float:
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    start = time.process_time()
    for _ in range(10):
        left @ right
    return 20 * 1024**3 / (time.process_time() - start)


def _bandwidth(torch: Any) -> float:
    block = torch.ones(64 * 2**20)
    start = time.process_time()
    for _ in range(4):
        block.sum()
    return 4 * block.nbytes / (time.process_time() - start)


def _rewards() -> tuple[float, float]:
    from layerpick.training.tasks.math import is_correct

    seconds = []
    for form in ("So it is #### {}", "The answer is $\\boxed{{\\frac{{{}}}{{3}}}}$"):
        start = time.process_time()
        for number in range(200):
            is_correct(form.format(number), "7")
        seconds.append((time.process_time() - start) / 200)
    return seconds[0], seconds[1]


def _record() -> float:
    from layerpick.calibration.paths import SHIPPED_SWEEPS
    from layerpick.calibration.sweeps.store import FolderStore, read_folder

    found = read_folder(SHIPPED_SWEEPS / "reference-math" / "math-grpo")
    with tempfile.TemporaryDirectory() as folder:
        store, start = FolderStore(Path(folder)), time.perf_counter()
        for record in found:
            store.write([record])
        return (time.perf_counter() - start) / len(found)
