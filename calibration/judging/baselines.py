"""What a person would rank layers by instead: rankings by one feature, or by none.

A baseline gives every layer a score; the layer with the highest is its pick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Features = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Baseline:
    """A ranking that needs no predictor."""

    name: str
    about: str
    source: str
    feature: str | None
    """The feature that it needs; None if it needs only the number of layers."""
    _score: Callable[[np.ndarray, np.random.Generator], np.ndarray]

    def scores(self, layers: int, features: Features, seed: int = 0) -> np.ndarray:
        """(layers,), float64, higher is better. Raises KeyError without the feature it needs."""
        depth = np.linspace(0, 1, layers) if layers > 1 else np.zeros(1)
        values = depth if self.feature is None else np.asarray(features[self.feature], float)
        return self._score(values, np.random.default_rng(seed))


def _highest(name: str, about: str, source: str, feature: str) -> Baseline:
    return Baseline(name, about, source, feature, lambda values, _: values)


BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline(
            "middle first",
            "closest to the middle of the depth",
            "arXiv 2607.01232",
            None,
            lambda depth, _: -np.abs(depth - 0.5),
        ),
        Baseline("earlier first", "closest to the input", "–", None, lambda depth, _: -depth),
        Baseline("later first", "closest to the output", "–", None, lambda depth, _: depth),
        Baseline("random", "a random order", "–", None, lambda depth, rng: rng.random(len(depth))),
        _highest(
            "gradient norm", "largest gradient", "as `aletheia-lora` ranks layers", "gradient_norm"
        ),
        _highest(
            "auto-RGN",
            "largest gradient relative to the weights",
            "Surgical Fine-Tuning (arXiv 2210.11466)",
            "relative_gradient_norm",
        ),
        _highest(
            "Spectrum SNR",
            "highest signal-to-noise ratio of the weights",
            "Spectrum (arXiv 2406.06623)",
            "spectrum_snr",
        ),
        _highest(
            "WeightWatcher α",
            "lightest tails, as the least trained",
            "Temperature Balancing (arXiv 2312.00359): larger α, larger learning rate",
            "power_law_alpha",
        ),
        _highest(
            "block influence",
            "changes the hidden state most",
            "ShortGPT (arXiv 2403.03853)",
            "block_influence",
        ),
    )
}
