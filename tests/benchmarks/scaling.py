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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scaling_constants import measure
from scaling_model import (
    GPU,
    GROUP,
    PROMPTS,
    Constants,
    Machine,
    Shape,
    batch_size,
    fit_policies,
    pass_seconds,
)

CONSTANTS = Path(__file__).with_name("scaling.json")
SHAPES = {
    "Qwen3-0.6B": Shape(28, 1024, 3072, 16, 8, 128, 151936, True),
    "Qwen3-4B": Shape(36, 2560, 9728, 32, 8, 128, 151936, True),
    "Qwen3-8B": Shape(36, 4096, 12288, 32, 8, 128, 151936, False),
    "Qwen3-32B": Shape(64, 5120, 25600, 64, 8, 128, 151936, False),
}


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
