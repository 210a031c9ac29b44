"""Statistics of the gradients of several micro-batches, from one layer's sketch.

Most follow from the Gram matrix ⟨g_m, g_n⟩ alone, which is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from layerpick.probes.gradient.sketch import KINDS, LayerSketch

FISHER_DAMPING = 1e-3
"""ε of the Fisher-normalised gain, as a share of the layer's mean Fisher information."""


def gram_matrices(sketch: LayerSketch) -> np.ndarray:
    """(kinds, m, m), float64: estimates of ⟨g_m, g_n⟩ over the parameters of each kind."""
    found = []
    for kind in KINDS:
        columns = sketch.columns[kind]
        values = sketch.values[:, columns].double()
        found.append((values * sketch.weights[columns]) @ values.T)
    return torch.stack(found).numpy()


def size_and_signal(gram: np.ndarray, squared_norms: np.ndarray | None = None) -> dict[str, float]:
    """Norm of the mean gradient, its unbiased squared size, its noise, and their ratio.

    gram (m, m); squared_norms (m,): exact ‖g‖², where they are known.
    """
    count = len(gram)
    own = gram.trace()  # estimates Σ‖g_m‖²; its error cancels in the sum over m ≠ n
    trace = float(own / count if squared_norms is None else squared_norms.mean())
    signal = float((gram.sum() - own) / (count * (count - 1)))
    variance = max(trace - signal, 0.0)
    return {
        "gradient_norm": float(max(gram.mean(), 0.0) ** 0.5),
        "gradient_signal": signal,
        "gradient_snr": signal / variance if variance > 0 else 0.0,
        "fisher_trace": trace,
    }


def mean_cosine(gram: np.ndarray) -> float:
    """Mean cosine over pairs of micro-batches; those without gradient agree with none."""
    norms = np.sqrt(gram.diagonal().clip(min=0))
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    cosines = gram * np.outer(scale, scale)
    return float((cosines.sum() - cosines.trace()) / (len(gram) * (len(gram) - 1)))


def cosine_of_means(gram: np.ndarray, rows_a: Sequence[int], rows_b: Sequence[int]) -> float:
    """Cosine between the mean gradients of two sets of micro-batches; 0 if one has none."""
    a, b = list(rows_a), list(rows_b)
    norms = (gram[np.ix_(a, a)].mean() * gram[np.ix_(b, b)].mean()) ** 0.5
    return float(gram[np.ix_(a, b)].mean() / norms) if norms > 0 else 0.0


def expected_gains(
    sketch: LayerSketch, half_a: Sequence[int], half_b: Sequence[int]
) -> dict[str, float]:
    """Gains whose direction comes from one half of the micro-batches and slope from the other."""
    a, b = (sketch.values[list(half)].mean(dim=0, dtype=torch.float64) for half in (half_a, half_b))
    fisher = sketch.values[[*half_a, *half_b]].square().mean(dim=0, dtype=torch.float64)
    weights = sketch.weights
    damping = FISHER_DAMPING * float((weights * fisher).sum() / weights.sum())
    fisher_gain = (weights * a * b / (fisher + damping)).sum() if damping > 0 else 0.0
    adam_gain = 0.5 * (weights * (a.sign() * b + b.sign() * a)).sum()
    return {"fisher_gain": float(fisher_gain), "adam_gain": float(adam_gain)}


def alternating_halves(signal: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """Disjoint halves of `count` groups, with those that carry signal dealt out evenly."""
    silent = sorted(set(range(count)) - set(signal))
    order = [*signal, *silent]
    return order[0::2], order[1::2]


def difficulty_halves(
    signal: Sequence[int], mean_rewards: Sequence[float]
) -> tuple[list[int], list[int]]:
    """The groups that carry signal, split into those that earn more and those that earn less."""
    order = sorted(signal, key=lambda group: (-mean_rewards[group], group))
    middle = (len(order) + 1) // 2
    return order[:middle], order[middle:]
