"""What a full sweep takes on 1, 8 and 64 GPUs: a cost model, its constants, its check.

    .venv/bin/python tests/benchmarks/scaling.py --measure SMOL.gguf     # constants → scaling.json
    .venv/bin/python tests/benchmarks/scaling.py [--answer 512] [--seeds 2] [--rates 3] [--price 3]

Measuring takes about a minute of one thread; seconds are processor time, so that others may use the
machine too. The second form prints the tables of docs/scaling.md. A step of P stacked policies with
r rows each that write T tokens takes

    decoding  T · (L·a + P·b + P·r·c + max(bytes / bandwidth, FLOPs / rate))
    update    FLOPs / rate, of (P·r·T + prompts) tokens: forward, half of the layers back, one layer

with a, b, c fitted to the built-in model, on which arithmetic is nothing, and rate = the share of a
matrix product's rate that the update of a real model reaches. Bandwidth and product rate of a GPU
are its maker's, its share is assumed (--share), and a, b, c are carried over from a CPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CONSTANTS = Path(__file__).with_name("scaling.json")
SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"
PROMPTS, GROUP, STEPS, HELD_OUT, ROWS = 16, 8, 60, 1024, 2048
GPU = {"memory": 80e9, "bandwidth": 3.35e12, "product": 989e12}
"""H100 SXM, bfloat16, by its data sheet."""


@dataclass(frozen=True)
class Shape:
    """A dense decoder."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool

    @property
    def layer(self) -> int:
        """Parameters of one decoder layer."""
        attention = 2 * self.width * self.head * (self.heads + self.kv_heads)
        return attention + 3 * self.width * self.inner + 2 * self.width

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.layer + self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def cache(self) -> int:
        """Numbers that the KV cache holds for one token."""
        return self.layers * 2 * self.kv_heads * self.head


SHAPES = {
    "Qwen3-0.6B": Shape(28, 1024, 3072, 16, 8, 128, 151936, True),
    "Qwen3-4B": Shape(36, 2560, 9728, 32, 8, 128, 151936, True),
    "Qwen3-8B": Shape(36, 4096, 12288, 32, 8, 128, 151936, False),
    "Qwen3-32B": Shape(64, 5120, 25600, 64, 8, 128, 151936, False),
}


@dataclass(frozen=True)
class Constants:
    """Seconds, and shares of one, as measured here."""

    layer: float
    """a: of one layer for one token of the batch (calling the operations)."""
    policy: float
    """b: of one policy's own layer for one token."""
    row: float
    """c: of one row for one token (sampling, stop strings)."""
    share: float
    """Of a matrix product's rate, that an update reaches."""
    product: float
    """FLOP/s of a matrix product here."""
    bandwidth: float
    """Bytes/s of reading memory here."""
    plain_reward: float
    """A math reward, plain number."""
    parsed_reward: float
    """A math reward that is parsed (LaTeX)."""
    record: float
    """Writing one run's record."""


@dataclass(frozen=True)
class Machine:
    """What computes."""

    product: float
    bandwidth: float
    bytes: int
    """Of one frozen weight."""


def sampling_seconds(
    shape: Shape, machine: Machine, known: Constants, policies: int, rows: int, tokens: float,
    prompt: float, limit: int = ROWS,
) -> float:  # fmt: skip
    """Decoding of `rows` rows of each policy, `tokens` each, in batches of at most `limit`."""
    batches = max(1, -(-policies * rows // limit))
    together = policies * rows / batches
    owners = max(1.0, policies / batches)
    read = shape.parameters * machine.bytes + owners * 4 * shape.layer
    read += together * (prompt + tokens / 2) * shape.cache * machine.bytes
    arithmetic = max(
        read / machine.bandwidth,
        2 * shape.parameters * together / (machine.product * known.share),
    )
    overhead = shape.layers * known.layer + owners * known.policy + together * known.row
    return batches * tokens * (overhead + arithmetic)


def update_seconds(
    shape: Shape, machine: Machine, known: Constants, policies: int, tokens: float, full: bool
) -> float:
    """Forward, back through half of the layers on average (full: all), weights' gradients."""
    body = shape.parameters - shape.vocabulary * shape.width * (1 if shape.tied else 2)
    head = shape.vocabulary * shape.width
    each = 6 * (body + head) if full else 3 * body + 4 * head + 2 * shape.layer
    return policies * tokens * each / (machine.product * known.share)


def pass_seconds(
    shape: Shape, machine: Machine, known: Constants, policies: int, answer: int, prompt: int,
    full: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Seconds of one pass by what they go to; with `policies` 0 the base score alone."""
    rows, limit = PROMPTS * GROUP, batch_size(shape, answer, prompt)
    scored = max(policies, 1)
    decoding = sampling_seconds(shape, machine, known, scored, HELD_OUT, answer, prompt, limit)
    update = 0.0
    if policies:
        decoding += STEPS * sampling_seconds(
            shape, machine, known, policies, rows, answer, prompt, limit
        )
        tokens = rows * answer + PROMPTS * prompt
        update = STEPS * update_seconds(shape, machine, known, policies, tokens, full)
    judged = (policies * STEPS * rows + scored * HELD_OUT) * known.parsed_reward
    return {"decoding": decoding, "update": update, "rewards": judged}


def fit_policies(shape: Shape, answer: int, prompt: int) -> int:
    """As `policies_that_fit`: half of what the weights leave free; one, if it fits at all."""
    free = GPU["memory"] - 2 * shape.parameters
    rows, token = PROMPTS * GROUP, 2 * shape.cache
    by_rule = int(free / 2 / (16 * shape.layer + rows * 2 * answer * token))
    alone = 16 * shape.layer + rows * (prompt + answer) * token < free
    return max(by_rule, int(alone))


def batch_size(shape: Shape, answer: int, prompt: int) -> int:
    """Rows whose cache fits beside the weights: what --batch-size must be at most."""
    free = GPU["memory"] - 2 * shape.parameters
    rows = int(0.8 * free / (2 * shape.cache * (prompt + answer)))
    return min(ROWS, 1 << max(0, rows.bit_length() - 1))


def plan(shape: Shape, known: Constants, chosen: argparse.Namespace, gpus: int) -> dict[str, Any]:
    """The passes of a sweep, dealt to GPUs, the longest first."""
    machine = Machine(GPU["product"], GPU["bandwidth"], 2)
    known = replace(known, share=chosen.share)
    fit = fit_policies(shape, chosen.answer, chosen.prompt)
    runs = shape.layers * chosen.rates * chosen.seeds
    full_fits = 18 * shape.parameters < GPU["memory"]
    each = min(fit, -(-runs // gpus))
    sizes = [each] * (runs // each) + ([runs % each] if runs % each else []) if each else []
    arguments = (shape, machine, known)
    ends = (chosen.answer, chosen.prompt)
    passes = [pass_seconds(*arguments, size, *ends) for size in sizes]
    passes += [pass_seconds(*arguments, 0, *ends) for _ in range(chosen.seeds)]
    if full_fits:
        fulls = chosen.rates * chosen.seeds
        passes += [pass_seconds(*arguments, 1, *ends, full=True) for _ in range(fulls)]
    loads = [0.0] * gpus
    for one in sorted((sum(p.values()) for p in passes), reverse=True):
        loads[loads.index(min(loads))] += one
    parts = {name: sum(p[name] for p in passes) for name in passes[0]}
    return {
        "fit": fit, "each": each, "passes": len(passes), "full": full_fits,
        "hours": max(loads) / 3600, "gpu_hours": sum(loads) / 3600, "parts": parts,
        "records": runs + chosen.seeds * (1 + chosen.rates),
    }  # fmt: skip


def tables(known: Constants, chosen: argparse.Namespace) -> None:
    """Print what docs/scaling.md shows."""
    print(
        "| model | GPUs | batch size | policies of a pass (fit) | passes | hours | GPU hours | $ "
        "| decoding, update, rewards |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        rows = batch_size(shape, chosen.answer, chosen.prompt)
        if not fit_policies(shape, chosen.answer, chosen.prompt):
            print(f"| {name} | any | | none fits beside {2 * shape.parameters / 1e9:.0f} GB of "
                  "weights | | | | | |")  # fmt: skip
            continue
        for gpus in (1, 8, 64):
            found = plan(shape, known, chosen, gpus)
            total = sum(found["parts"].values())
            shares = ", ".join(f"{value / total:.0%}" for value in found["parts"].values())
            without = "" if found["full"] else " (without full runs)"
            print(
                f"| {name}{without} | {gpus} | {rows} | {found['each']} ({found['fit']}) | "
                f"{found['passes']} | {found['hours']:.1f} | {found['gpu_hours']:.0f} | "
                f"{found['gpu_hours'] * chosen.price:,.0f} | {shares} |"
            )
    print()
    for name, shape in SHAPES.items():
        tokens = PROMPTS * GROUP * (chosen.prompt + chosen.answer)
        print(
            f"{name}: {shape.parameters / 1e9:.2f} B parameters, {shape.layer / 1e6:.0f} M in a "
            f"layer; one policy {16 * shape.layer / 1e9:.2f} GB and "
            f"{tokens * shape.cache * 2 / 1e9:.1f} GB of cache; "
            f"full-parameter run {18 * shape.parameters / 1e9:.0f} GB."
        )


# --- Constants ---


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


def main() -> None:
    """Measure, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", metavar="SMOL.gguf")
    parser.add_argument("--answer", type=int, default=512)
    parser.add_argument("--prompt", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rates", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.4, help="of a GPU's product rate")
    parser.add_argument("--price", type=float, default=3.0, help="of one GPU hour")
    chosen = parser.parse_args()
    if chosen.measure:
        known = measure(chosen.measure)
        CONSTANTS.write_text(json.dumps(asdict(known), indent=1) + "\n")
    known = Constants(**json.loads(CONSTANTS.read_text()))
    print(json.dumps({key: float(f"{value:.3g}") for key, value in asdict(known).items()}))
    tables(known, chosen)


if __name__ == "__main__":
    main()
