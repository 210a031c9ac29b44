"""How many trivial programs a second the sandbox judges: `python sandbox_throughput.py [COUNT]`."""

from __future__ import annotations

import os
import sys
import time

from layerpick.training.sandbox import Program, require_sandbox, run_programs

KINDS = {
    "assert statements": Program("def f(x): return x + 1", "f", ("assert f(1) == 2",)),
    "input and output": Program("print(int(input()) + 1)", io=(("1", "2"),)),
}


def main() -> None:
    """Print a line for each kind of test."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    cores = len(os.sched_getaffinity(0))
    require_sandbox()
    for kind, program in KINDS.items():
        start = time.perf_counter()
        verdicts = run_programs([program] * count)
        seconds = time.perf_counter() - start
        assert all(verdict.passed == 1 for verdict in verdicts)
        print(f"{kind}: {count / seconds:.1f} programs a second on {cores} cores")


if __name__ == "__main__":
    main()
