"""Rebuild a built-in model: `python -m layerpick.training.pretraining math --out FOLDER`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from layerpick.training.pretraining.recipes import RECIPES


def main() -> None:
    """Train the named model and write its folder, with a line of progress every 100 steps."""
    parser = argparse.ArgumentParser(
        prog="python -m layerpick.training.pretraining",
        description="Train a built-in model from scratch.",
        epilog="; ".join(f"{name}: {recipe.about}" for name, recipe in RECIPES.items()),
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recipe, start = RECIPES[arguments.recipe], time.monotonic()

    def report(step: int, loss: float) -> None:
        if (step + 1) % 100 == 0:
            print(
                f"step {step + 1} of {recipe.settings.steps}: loss {loss:.3f}, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )

    recipe.make(arguments.out, arguments.seed, report)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
