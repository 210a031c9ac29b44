"""Scores prompt by prompt: what two or three policies say together, with one kind of error.

Held-out prompts are the same in every run, so what they share cancels in a difference of scores.
Errors are therefore taken of the difference, prompt by prompt, and added in squares to the scatter
between seeds: with S seeds, σ² = σ²_prompts + s²_seeds / S, the first from each prompt's mean over
the seeds. Shares of a difference have the error of the linearised ratio: with N the numerator, D
the denominator and R = mean N / mean D, that of (N − R D) / mean D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np

from layerpick.calibration.sweeps.values import Score


@dataclass(frozen=True)
class Measured:
    """One policy over all seeds in which it was measured."""

    scores: np.ndarray
    """(seeds, prompts), float64."""
    seeds: tuple[int, ...]
    """None where it is a run outside a sweep."""
    curve: tuple[float, ...]
    """Mean training reward of each step, over the seeds and the rates chosen."""
    alone: np.ndarray
    """(seeds,), float64: what each seed scores as a sweep of its own, its rate chosen by itself."""
    rates: tuple[float, ...] = ()
    """Those at which the first and the second half of the prompts are scored, or the shared one."""
    failures: tuple[str, ...] = ()

    @classmethod
    def once(cls, by_prompt: Sequence[float]) -> Measured:
        """A policy of one run outside a sweep: in every seed of a sweep it is what it is."""
        scores = np.array([by_prompt], dtype=np.float64)
        return cls(scores, (), (), scores.mean(axis=1))

    @property
    def score(self) -> Score:
        """Mean and standard error."""
        return difference(self.scores)


def difference(scores: np.ndarray) -> Score:
    """Mean and standard error of scores (seeds, prompts), or differences of such."""
    seeds, prompts = scores.shape
    by_prompt, by_seed = scores.mean(axis=0), scores.mean(axis=1)
    variance = by_prompt.var(ddof=1) / prompts if prompts > 1 else 0.0
    variance += by_seed.var(ddof=1) / seeds if seeds > 1 else 0.0
    return Score(float(scores.mean()), float(np.sqrt(variance)))


def paired_difference(first: Measured, second: Measured) -> Score:
    """First − second by prompt, over the seeds that both have (else over each one's mean)."""
    one, other = aligned(first, second)
    return difference(one - other)


def share(single: Measured, base: Measured, whole: Measured) -> Score:
    """(single − base) / (whole − base), by prompt; not a number where the whole is the base."""
    one, all_of_it, none = aligned(single, whole, base)
    return _ratio(one - none, all_of_it - none)


def share_lost(pick: Measured, base: Measured, best: Measured) -> Score:
    """(best − pick) / (best − base), by prompt; not a number where the best is the base."""
    one, top, none = aligned(pick, best, base)
    return _ratio(top - one, top - none)


def share_of_score(single: Measured, base: Measured, whole: Score) -> Score:
    """`share` where no more than the mean of the whole is known, and perhaps its error.

    With C the share and D the whole gain, the error is that of (S_k − (1 − C) S_base) / D by
    prompt, and C / D times the error of the whole, added in squares; None where that is unknown.
    """
    one, none = aligned(single, base)
    gain = whole.mean - float(none.mean())
    value = float((one - none).mean()) / gain if gain else float("nan")
    if whole.error is None or not gain:
        return Score(value)
    own = difference(one - (1 - value) * none).error or 0.0
    return Score(value, hypot(own, value * whole.error) / abs(gain))


def aligned(*policies: Measured) -> list[np.ndarray]:
    """Scores (seeds, prompts) of the seeds that all have, or each one's mean over its own."""
    own = [policy.seeds for policy in policies if policy.seeds]
    shared = [seed for seed in own[0] if all(seed in seeds for seeds in own)] if own else []
    if not shared:
        return [policy.scores.mean(axis=0, keepdims=True) for policy in policies]
    return [
        policy.scores[[policy.seeds.index(seed) for seed in shared]]
        if policy.seeds
        else policy.scores.repeat(len(shared), axis=0)
        for policy in policies
    ]


def _ratio(part: np.ndarray, whole: np.ndarray) -> Score:
    """Mean of the part over mean of the whole, both (seeds, prompts)."""
    total = float(whole.mean())
    value = float(part.mean()) / total if total else float("nan")
    scatter = difference(part - value * whole)
    return Score(value, (scatter.error or 0.0) / abs(total) if total else float("nan"))
