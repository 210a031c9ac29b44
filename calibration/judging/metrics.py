"""How good a ranking of layers is, against measured contributions. All arrays are (layers,).

A prediction that does not tell layers apart has rank correlation 0.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

LAYERS_FOR_DEPTH = 6
"""Layers without which a quadratic in depth leaves too little to rank."""
TOP = 3


def spearman(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Rank correlation ρ, ties on their mean rank."""
    from scipy.stats import rankdata

    first, second = (rankdata(values) - (len(values) + 1) / 2 for values in (measured, predicted))
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale > 0 else 0.0


def kendall(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Rank correlation τ_b."""
    from scipy.stats import kendalltau

    value = float(kendalltau(measured, predicted).statistic)
    return value if np.isfinite(value) else 0.0


def without_depth(values: np.ndarray, depth: np.ndarray) -> np.ndarray | None:
    """What a quadratic in depth leaves; None with fewer than `LAYERS_FOR_DEPTH` layers."""
    if len(values) < LAYERS_FOR_DEPTH:
        return None
    powers = np.vander(depth, 3)
    rest = values - powers @ np.linalg.lstsq(powers, values, rcond=None)[0]
    # What rounding leaves of a prediction that is a quadratic must not be ranked.
    return np.where(np.abs(rest) > 1e-9 * max(1.0, float(np.abs(values).max())), rest, 0.0)


def regret(measured: np.ndarray, predicted: np.ndarray) -> float:
    """max C − C(picked layer)."""
    return float(measured.max() - measured[predicted.argmax()])


def share_lost(measured: np.ndarray, predicted: np.ndarray) -> float | None:
    """(max C − C(picked layer)) / max C, the same for any unit whose zero is the base model.

    None where no layer is above the base model.
    """
    best = float(measured.max())
    return regret(measured, predicted) / best if best > 0 else None


def pick_in(best: Set[int], layers: np.ndarray, predicted: np.ndarray) -> float:
    """1 if the picked layer, numbered by `layers`, is one of the best, else 0."""
    return float(int(layers[predicted.argmax()]) in best)


def top_recall(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the `TOP` best layers that are among the `TOP` predicted."""
    top = min(TOP, len(measured))
    found = {*np.argsort(-measured, kind="stable")[:top].tolist()}
    return len(found & {*np.argsort(-predicted, kind="stable")[:top].tolist()}) / top
