"""Runs generated programs against tests, without trusting the programs.

Each program runs in a fresh bubblewrap sandbox (`jail`). Tests run in a second sandbox, where the
program's functions are stand-ins that send arguments to the program and bring plain data back
(`inside`), so the program never shares memory with a test, an expected value or the verdict.

Limits: what is compared is plain data (numbers, texts, bytes, tuples, lists, sets, dictionaries,
ranges); an object of the program's own equals nothing, so a test cannot rest on its `==`. A bug in
the kernel is outside what a sandbox guards against.
"""

from layerpick.training.sandbox.assertions import Suite, called_functions, parse_suite
from layerpick.training.sandbox.jail import Limits
from layerpick.training.sandbox.verdict import (
    Program,
    Verdict,
    require_sandbox,
    run_programs,
    sandbox_available,
)

__all__ = [
    "Limits",
    "Program",
    "Suite",
    "Verdict",
    "called_functions",
    "parse_suite",
    "require_sandbox",
    "run_programs",
    "sandbox_available",
]
