"""What the singular values of one weight matrix say about it.

All functions take singular values in float64, in any order, and do not depend on the matrix's
orientation. Values at or below 1e-6 of the largest are rounding, not spectrum, and are dropped.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RELATIVE_FLOOR = 1e-6
"""Squaring the matrix costs half of float64's digits; below this share nothing is known."""
NORMAL_INTERQUARTILE = 1.349
"""Interquartile range of a normal distribution, in standard deviations."""


def singular_values(matrix: Tensor) -> np.ndarray:
    """Shape (k,), float64, descending: of a matrix of any dtype, from its Gram matrix."""
    wide = matrix.double()
    gram = wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)
    return _above_floor(values.cpu().numpy())


def spectrum_snr(values: np.ndarray, shape: tuple[int, int]) -> float:
    """Signal-to-noise ratio of a matrix by the Marchenko–Pastur bound, over its largest value.

    Σ_{s > ε} s / Σ_{s ≤ ε} s / max s, ε = σ (1 + √β), β = short side / long side, σ the
    interquartile range of s over 1.349: the score of 'Spectrum' (arXiv 2406.06623, section 3.2).
    The smallest value counts as noise even if it lies above ε.
    """
    quartiles = np.quantile(values, [0.25, 0.75])
    sigma = (quartiles[1] - quartiles[0]) / NORMAL_INTERQUARTILE
    bound = sigma * (1 + (min(shape) / max(shape)) ** 0.5)
    noisy = values <= max(bound, values.min())
    return float(values[~noisy].sum() / values[noisy].sum() / values.max())


def stable_rank(values: np.ndarray) -> float:
    """‖W‖_F² / ‖W‖₂², between 1 and the rank."""
    squares = values**2
    return float(squares.sum() / squares.max())


def power_law_exponent(values: np.ndarray) -> float:
    """α of p(λ) ∝ λ^−α, fitted to the tail of the eigenvalues λ = s² of WᵀW.

    Maximum likelihood above λ_min, with λ_min where the Kolmogorov–Smirnov distance is least
    (Clauset, Shalizi, Newman, arXiv 0706.1062, equations 3.1 and 3.9), as WeightWatcher does.
    NaN with fewer than 3 values, or where all are equal.
    """
    eigenvalues = np.sort(values**2)
    count = len(eigenvalues)
    if count < 3 or eigenvalues[0] == eigenvalues[-1]:
        return float("nan")
    logs = np.log(eigenvalues)
    best, chosen = np.inf, float("nan")
    for start in range(count - 1):
        tail = logs[start:] - logs[start]
        total = tail.sum()
        if total == 0:
            continue
        above = len(tail) / total  # α − 1
        fitted = 1 - np.exp(-above * tail)
        distance = np.abs(fitted - np.arange(len(tail)) / len(tail)).max()
        if distance < best:
            best, chosen = distance, 1 + above
    return float(chosen)


def _above_floor(values: np.ndarray) -> np.ndarray:
    return values[values > RELATIVE_FLOOR * values.max(initial=0.0)]
