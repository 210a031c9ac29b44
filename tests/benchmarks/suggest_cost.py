"""What `layerpick suggest` costs: seconds and resident memory, each in a process of its own.

    .venv/bin/python tests/benchmarks/suggest_cost.py [MODEL.gguf]

With the path of SmolLM2-135M-Instruct's GGUF file, that model is measured too (8 prompts × 8
samples × 32 tokens; the conversion of the file is done once before and not counted).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

COMMAND = [sys.executable, "-c", "from layerpick.selector.app.entry import main; main()"]
SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"


def cost(*arguments: str) -> tuple[float, float]:
    """Seconds and peak resident GB of one `layerpick` command."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            [*COMMAND, *arguments, "--out", out],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(errors.decode())
    return seconds, usage.ru_maxrss * 1024 / 1e9


def row(name: str, limits: tuple[float, float], *arguments: str) -> None:
    """Print one measurement beside its limits."""
    seconds, memory = cost(*arguments)
    print(f"{name:<44} {seconds:7.1f} s (≤ {limits[0]:g})   {memory:5.2f} GB (≤ {limits[1]:g})")


def main() -> None:
    """Measure help, the reference model and, if given, SmolLM2."""
    for command in ([], ["suggest"], ["tasks"]):
        start = time.perf_counter()
        subprocess.run([*COMMAND, *command, "--help"], stdout=subprocess.DEVNULL, check=True)
        name = " ".join(["layerpick", *command, "--help"])
        print(f"{name:<44} {time.perf_counter() - start:7.2f} s (≤ 0.6)")
    row("suggest, reference model", (30, 1.2), "suggest")
    if len(sys.argv) > 1:
        model = [sys.argv[1], "--prompts", "8", "--group-size", "8", "--max-new-tokens", "32"]
        data = ["--dataset", SUMS, "--template", "3 + 5 = 8\n7 - 2 = 5\n{expression} ="]
        cost("suggest", sys.argv[1], "--prompts", "2", "--max-new-tokens", "4", *data)  # converts
        row("suggest, SmolLM2-135M, 8 × 8 × 32", (150, 3), "suggest", *model, *data)


if __name__ == "__main__":
    main()
