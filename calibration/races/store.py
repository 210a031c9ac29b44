"""Rules of races as a file: learned from stored sweeps, one for each level and budget."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from layerpick.calibration.judging.evaluation import hold_out
from layerpick.calibration.predictors.choice import Progress
from layerpick.calibration.predictors.levels import LEVELS, Level
from layerpick.calibration.predictors.stored import own_or_shipped
from layerpick.calibration.races.curves import SweepCurves, read_curves
from layerpick.calibration.races.foresight import Foresight
from layerpick.calibration.races.rule import RaceRule, learn_rule
from layerpick.calibration.sweeps.examples import Example
from layerpick.calibration.sweeps.store import read_folder, sweep_folders
from layerpick.training.errors import LayerpickError
from layerpick.training.files import write_text
from layerpick.training.reading import read_record
from layerpick.training.values import Record

SCHEMA_VERSION: Literal[1] = 1
RULES_FILE = "races.json"
MADE_BY = "layerpick calibrate --races"
BUDGETS = (1.5, 2.0, 2.5, 3.0, 4.0)
"""Single-layer runs for which rules are learned."""
RACED_LEVELS = ("backward", "one_step", "off_policy")
DIGITS = 5


class StoredRule(RaceRule):
    """A rule and what it is for."""

    level: str
    budget: float
    """In single-layer runs."""
    sweeps: int
    """How many it was learned from."""


class StoredRules(Record):
    """The file."""

    schema_version: Literal[1] = SCHEMA_VERSION
    rules: tuple[StoredRule, ...]


def curves_of(
    examples: Sequence[Example],
    roots: Sequence[Path],
    level: Level,
    done: Progress = lambda _: None,
) -> list[SweepCurves]:
    """The curves of the examples' sweeps, each with its prediction made without its model."""
    held_out, _ = hold_out(examples, examples, level, "model", done)
    predicted = {(example.about, example.rates): example for example in held_out}
    found = []
    for folder in dict.fromkeys(folder for root in roots for folder in sweep_folders(root)):
        records = read_folder(folder)
        settings = records[0].settings
        example = predicted.get((settings.about, settings.rates))
        if example is not None:
            predictions = held_out[example].prediction.contribution
            curves = read_curves(records, predictions, example.population)
            found += [curves] if curves is not None else []
    return found


def learn_races(
    examples: Sequence[Example], roots: Sequence[Path], done: Progress = lambda _: None
) -> StoredRules:
    """Rules for every level and budget. Raises LayerpickError with no curves of two seeds."""
    curves = {level: curves_of(examples, roots, LEVELS[level], done) for level in RACED_LEVELS}
    known = {level: found for level, found in curves.items() if found}
    if not known:
        raise LayerpickError("Races are learned from sweeps of two seeds, and there is none.")
    return learn_rules(known)


def learn_rules(curves: Mapping[str, Sequence[SweepCurves]]) -> StoredRules:
    """Rules for every budget, from the curves of all sweeps by level."""
    rules = []
    for level, sweeps in curves.items():
        for budget in BUDGETS:
            rule = learn_rule(sweeps, budget)
            rules.append(
                StoredRule(
                    level=level,
                    budget=budget,
                    strictness=rule.strictness,
                    arms=rule.arms,
                    foresights=tuple(_rounded(foresight) for foresight in rule.foresights),
                    sweeps=len(sweeps),
                )
            )
    return StoredRules(rules=tuple(rules))


def write_rules(rules: StoredRules, folder: Path) -> Path:
    """Write the file beside the predictors, whole or not at all."""
    path = folder / RULES_FILE
    write_text(path, rules.model_dump_json(indent=1) + "\n")
    return path


def find_rule(level: str, budget: float) -> StoredRule:
    """The rule of a level for the largest budget learned that is not above this one.

    The user's own file counts before the shipped one; a level without rules takes those of the
    nearest cheaper one. Raises LayerpickError for a budget that no rule is cheap enough for.
    """
    path = own_or_shipped(RULES_FILE)
    remedy = f"delete it, or make it again with `{MADE_BY}`"
    rules = read_record(path, StoredRules, "rules of races", remedy).rules
    order = list(LEVELS)
    levels = sorted({r.level for r in rules}, key=order.index)
    chosen = [name for name in levels if order.index(name) <= order.index(level)] or levels[:1]
    fitting = [r for r in rules if r.level == chosen[-1] and r.budget <= budget + 1e-9]
    if not fitting:
        least = min(r.budget for r in rules)
        raise LayerpickError(f"--race-budget must be at least {least:g} single-layer runs.")
    return max(fitting, key=lambda r: r.budget)


def _rounded(foresight: Foresight) -> Foresight:
    text = json.dumps(foresight.model_dump())
    return Foresight.model_validate(json.loads(text, parse_float=_short))


def _short(number: str) -> float:
    return float(f"{float(number):.{DIGITS}g}")
