"""Each policy's own learning rate: chosen on one half of the held-out prompts, scored on the other.

A policy trained at R rates could be scored at the best of them. But the best of several noisy
scores is higher than it would be if measured again, and the more so the closer the rates lie.
Choice and score are therefore kept apart, twice (cross-fitting): prompts with even numbers, counted
from 0 in their order, make the first half, those with odd numbers the second. Each half is scored
at the rate that is best on the other half, by the mean over its prompts and all seeds; on ties, at
the lower rate. Every prompt counts, and none has a say in the rate that it is scored at.

Limits: all seeds choose together, so luck in training at some rate is in both halves; half of the
prompts choose a little worse than all would, so scores lie slightly below the best rate's.
"""

from __future__ import annotations

import numpy as np


def chosen_rates(scores: np.ndarray) -> tuple[int, int]:
    """Indices of the rates at which the first and the second half of the prompts are scored.

    scores (rates, seeds, prompts), rates ascending, at least two prompts.
    """
    on_first, on_second = (int(_half(scores, half).mean(axis=(1, 2)).argmax()) for half in (0, 1))
    return on_second, on_first


def cross_fitted(scores: np.ndarray) -> np.ndarray:
    """Scores (seeds, prompts) at a policy's own rate, from scores (rates, seeds, prompts)."""
    fitted = np.empty(scores.shape[1:])
    for half, rate in enumerate(chosen_rates(scores)):
        _half(fitted, half)[:] = _half(scores[rate], half)
    return fitted


def _half(scores: np.ndarray, half: int) -> np.ndarray:
    """A view of every second prompt, the last axis."""
    return scores[..., half::2]
