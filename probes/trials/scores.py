"""How a policy would do on rollouts that the base policy sampled.

All arrays have one entry per trajectory of one prompt; d = log π − log π₀ of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WEIGHT_CAP = 5.0
"""Largest importance weight."""


@dataclass(frozen=True)
class PromptScore:
    """One prompt's judgement of a policy."""

    gain: float
    normalised_gain: float
    kl: float


def score_prompt(rewards: np.ndarray, moved: np.ndarray, divergence: np.ndarray) -> PromptScore:
    """Expected change in reward, by two estimators, and the divergence from the base policy.

    moved: Σ_t d; divergence: Σ_t (exp d − 1 − d), whose expectation is KL(π₀ ‖ π) (k3 of
    Schulman 2020). With w = min(exp Σ d, 5), the gain is the mean of (w − 1) (r − mean of the
    others' r), unbiased but for the cap; the normalised gain is Σ w r / Σ w − mean of r.
    """
    weights = np.exp(np.minimum(moved, np.log(WEIGHT_CAP)))
    count = len(rewards)
    others = (rewards.sum() - rewards) / max(count - 1, 1)
    return PromptScore(
        gain=float(((weights - 1) * (rewards - others)).mean()),
        normalised_gain=float((weights * rewards).sum() / weights.sum() - rewards.mean()),
        kl=float(divergence.mean()),
    )


def summary(scores: Sequence[PromptScore]) -> Mapping[str, float]:
    """What `means_over_prompts` makes of the prompts' scores."""
    return means_over_prompts(
        {
            "gain": np.array([score.gain for score in scores]),
            "normalised_gain": np.array([score.normalised_gain for score in scores]),
            "kl": np.array([score.kl for score in scores]),
        }
    )


def means_over_prompts(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over prompts with their standard errors, and the gain per √KL with its own.

    values: by name, among them `gain` and `kl`, each (prompts,). The error of gain / √KL is that
    of its linearisation in both means. 0 where nothing moved.
    """
    found: dict[str, float] = {}
    for name, each in values.items():
        found[name], found[f"{name}_error"] = float(each.mean()), _error(each)
    kl = found["kl"]
    if kl > 0:
        found["gain_per_kl"] = found["gain"] / kl**0.5
        linear = values["gain"] / kl**0.5 - 0.5 * found["gain"] * values["kl"] / kl**1.5
        found["gain_per_kl_error"] = _error(linear)
    else:
        found["gain_per_kl"] = found["gain_per_kl_error"] = 0.0
    return found


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
