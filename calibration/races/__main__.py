"""Learn the rules of races anew: `python -m layerpick.calibration.races [SWEEPS …] --out FOLDER`.

Takes some minutes: every model is left out in turn at three levels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from layerpick.calibration.paths import SHIPPED_PREDICTORS, SHIPPED_SWEEPS
from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.races.store import RACED_LEVELS, curves_of, learn_rules, write_rules
from layerpick.calibration.sweeps.examples import load_examples


def main() -> None:
    """Write `races.json`."""
    parser = argparse.ArgumentParser(prog="python -m layerpick.calibration.races")
    parser.add_argument("sweeps", nargs="*", type=Path, default=[SHIPPED_SWEEPS])
    parser.add_argument("--out", type=Path, default=SHIPPED_PREDICTORS)
    chosen = parser.parse_args()
    examples = load_examples(chosen.sweeps).examples
    curves = {level: curves_of(examples, chosen.sweeps, LEVELS[level]) for level in RACED_LEVELS}
    print(write_rules(learn_rules(curves), chosen.out))


if __name__ == "__main__":
    main()
