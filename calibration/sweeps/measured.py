"""What a measured sweep says: contributions with errors, the best layer and its equals.

Errors. A score's error over prompts and the scatter between seeds are added in squares: with S
seeds, σ² = σ²_prompts + s²_seeds / S, the first from each prompt's mean over the seeds. Held-out
prompts are the same in every run, so what they share cancels in a difference of scores: whether
two layers can be told apart is judged on their difference by prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from layerpick.calibration.sweeps.values import Score, Sweep
from layerpick.training.errors import LayerpickError
from layerpick.training.sweeps.records import RunRecord, RunSettings

SIGNIFICANT = 2.0
"""Standard errors that a difference must exceed to count."""


@dataclass(frozen=True)
class Measured:
    """One policy over all seeds in which it was measured."""

    scores: np.ndarray
    """(seeds, prompts), float64."""
    seeds: tuple[int, ...]
    curve: tuple[float, ...]
    """Mean training reward of each step, over the seeds."""
    failures: tuple[str, ...] = ()

    @property
    def score(self) -> Score:
        """Mean and standard error."""
        return difference(self.scores)


@dataclass(frozen=True)
class Reading:
    """A sweep as it stands in its folder."""

    settings: RunSettings
    learning_rate: float
    learning_rate_grid: tuple[float, ...]
    base: Measured
    full: Measured
    layers: Mapping[int, Measured]
    """Those with a score."""
    failed: Mapping[int, str]
    """Layers whose run failed in every seed, and why."""
    seconds: float
    tokens: int

    @property
    def gain(self) -> Score:
        """S_full − S_base, paired by prompt."""
        return paired_difference(self.full, self.base)

    @property
    def refusal(self) -> str | None:
        """Why contributions mean nothing here, if so."""
        gain, error = self.gain.mean, self.gain.error or 0.0
        return no_gain(Score(gain, error))

    def contribution(self, layer: int) -> Score:
        """C(k) with its standard error; meaningless where `refusal` says so.

        The error is that of the linearised ratio, prompt by prompt: with G the gain,
        z = ((S_k − S_base) − C (S_full − S_base)) / G. What prompts have in common cancels.
        """
        single, full, base = _aligned(self.layers[layer], self.full, self.base)
        gain = float((full - base).mean())
        value = float((single - base).mean()) / gain if gain else float("nan")
        scatter = difference((single - base) - value * (full - base))
        return Score(value, (scatter.error or 0.0) / abs(gain) if gain else float("nan"))

    @property
    def sweep(self) -> Sweep:
        """The scores as a plain value, for predictors and plots."""
        settings = self.settings
        return Sweep(
            model=settings.model,
            num_layers=settings.layers,
            task=settings.task,
            algorithm=settings.algorithm,
            dataset=settings.source,
            base=self.base.score,
            full=self.full.score,
            layers={layer: measured.score for layer, measured in self.layers.items()},
            source="measured",
        )

    @property
    def best(self) -> int:
        """The layer with the highest score."""
        return max(self.layers, key=lambda layer: self.layers[layer].score.mean)

    @property
    def equals(self) -> tuple[int, ...]:
        """Other layers whose score is within two standard errors of the best one's."""
        best = self.layers[self.best]
        return tuple(
            layer
            for layer, measured in self.layers.items()
            if layer != self.best and not _apart(best, measured)
        )

    @property
    def noise_ceiling(self) -> float | None:
        """Mean rank correlation of the layers' scores between two seeds.

        None with one seed, fewer than three layers, or scores that do not differ.
        """
        from scipy.stats import spearmanr

        by_seed: dict[int, dict[int, float]] = defaultdict(dict)
        for layer, measured in self.layers.items():
            for seed, scores in zip(measured.seeds, measured.scores, strict=True):
                by_seed[seed][layer] = float(scores.mean())
        correlations = []
        for first, second in combinations(by_seed.values(), 2):
            shared = sorted(set(first) & set(second))
            pair = [[scores[layer] for layer in shared] for scores in (first, second)]
            if len(shared) > 2 and all(np.ptp(scores) > 0 for scores in pair):
                correlations.append(float(spearmanr(*pair).statistic))
        return float(np.mean(correlations)) if correlations else None


def no_gain(gain: Score) -> str | None:
    """Why shares of a full-parameter gain are not defined, if it is not clearly above zero."""
    error = gain.error or 0.0
    if gain.mean > SIGNIFICANT * error:
        return None
    return (
        f"The full-parameter run gained {gain.mean:+.3f} ± {error:.3f}, not more than two standard "
        f"errors above zero: shares of it are not defined. Train longer or at another learning "
        f"rate, or score on more held-out prompts."
    )


def read_sweep(records: Sequence[RunRecord]) -> Reading:
    """Gather the records of one sweep.

    Raises LayerpickError when the base score, the full run or every layer is missing.
    """
    layer_runs = [record for record in records if record.run.kind == "layer"]
    rate = _learning_rate(records, layer_runs)
    full = [
        record
        for record in records
        if record.run.kind == "full" and record.run.learning_rate == rate
    ]
    base = _measured([record for record in records if record.run.kind == "base"])
    together = _measured(full)
    by_layer: dict[int, list[RunRecord]] = defaultdict(list)
    for record in layer_runs:
        if record.run.layer is not None and record.run.learning_rate == rate:
            by_layer[record.run.layer].append(record)
    measured = {layer: _measured(runs) for layer, runs in sorted(by_layer.items())}
    layers = {layer: found for layer, found in measured.items() if found is not None}
    if base is None or together is None or not layers:
        lacking = "base score" if base is None else "full run" if together is None else "layer"
        raise LayerpickError(
            f"The sweep of {records[0].settings.model} has no finished {lacking} yet: run "
            f"`layerpick sweep` to its end."
        )
    return Reading(
        settings=records[0].settings,
        learning_rate=rate,
        learning_rate_grid=records[0].learning_rate_grid,
        base=base,
        full=together,
        layers=layers,
        failed={
            layer: str(runs[0].reason) for layer, runs in by_layer.items() if layer not in layers
        },
        seconds=sum(record.seconds for record in records),
        tokens=sum(record.tokens for record in records),
    )


def _learning_rate(records: Sequence[RunRecord], layer_runs: Sequence[RunRecord]) -> float:
    """The rate that the layers were trained with, or that the full run has with most seeds."""
    runs = layer_runs or [record for record in records if record.run.kind == "full"]
    rates = [record.run.learning_rate for record in runs if record.run.learning_rate is not None]
    return max(set(rates), key=lambda rate: (rates.count(rate), -rate)) if rates else 0.0


def _measured(records: Sequence[RunRecord]) -> Measured | None:
    done = sorted((r for r in records if r.status == "done"), key=lambda record: record.run.seed)
    if not done:
        return None
    curves = [record.curve for record in done]
    shortest = min(len(curve) for curve in curves)
    return Measured(
        scores=np.array([record.prompt_scores for record in done]),
        seeds=tuple(record.run.seed for record in done),
        curve=tuple(np.mean([curve[:shortest] for curve in curves], axis=0).tolist()),
        failures=tuple(str(record.reason) for record in records if record.status == "failed"),
    )


def difference(scores: np.ndarray) -> Score:
    """Mean and standard error of scores (seeds, prompts) over prompts and seeds."""
    seeds, prompts = scores.shape
    by_prompt, by_seed = scores.mean(axis=0), scores.mean(axis=1)
    variance = by_prompt.var(ddof=1) / prompts if prompts > 1 else 0.0
    variance += by_seed.var(ddof=1) / seeds if seeds > 1 else 0.0
    return Score(float(scores.mean()), float(np.sqrt(variance)))


def paired_difference(first: Measured, second: Measured) -> Score:
    """First − second by prompt, over the seeds that both have (else over each one's mean)."""
    one, other = _aligned(first, second)
    return difference(one - other)


def _aligned(*policies: Measured) -> list[np.ndarray]:
    """Scores (seeds, prompts) of the seeds that all have, or each one's mean over its own."""
    shared = [seed for seed in policies[0].seeds if all(seed in p.seeds for p in policies)]
    if not shared:
        return [policy.scores.mean(axis=0, keepdims=True) for policy in policies]
    return [policy.scores[[policy.seeds.index(seed) for seed in shared]] for policy in policies]


def _apart(best: Measured, other: Measured) -> bool:
    gap = paired_difference(best, other)
    return gap.mean > SIGNIFICANT * (gap.error or 0.0)
