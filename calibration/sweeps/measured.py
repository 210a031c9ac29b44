"""What a measured sweep says: contributions with errors, the best layer and its equals.

Errors. A score's error over prompts and the scatter between seeds are added in squares: with S
seeds, σ² = σ²_prompts + s²_seeds / S, the first from each prompt's mean over the seeds. Held-out
prompts are the same in every run, so what they share cancels in a difference of scores: whether
two layers can be told apart is judged on their difference by prompt.

Rates. A sweep at a shared rate has one score for each policy and seed. One with own rates has
several, and `calibration.sweeps.rates` makes one of them; all else is read the same way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from layerpick.calibration.sweeps.rates import chosen_rates, cross_fitted
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
    """Mean training reward of each step, over the seeds and the rates chosen."""
    alone: np.ndarray
    """(seeds,), float64: what each seed scores as a sweep of its own, its rate chosen by itself."""
    rates: tuple[float, ...] = ()
    """Those at which the first and the second half of the prompts are scored, or the shared one."""
    failures: tuple[str, ...] = ()

    @property
    def score(self) -> Score:
        """Mean and standard error."""
        return difference(self.scores)


@dataclass(frozen=True)
class Reading:
    """A sweep as it stands in its folder."""

    settings: RunSettings
    learning_rate: float | None
    """The shared one; None where each policy has its own."""
    learning_rate_grid: tuple[float, ...]
    base: Measured
    full: Measured
    layers: Mapping[int, Measured]
    """Those with a score."""
    failed: Mapping[int, str]
    """Layers whose run failed in every seed, or at every rate in some seed, and why."""
    unfinished: tuple[int, ...]
    """Layers that no seed has trained at every rate yet."""
    seconds: float
    tokens: int
    cut: float | None = None
    """Share of held-out completions cut off, over all runs; None where records do not say."""

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
            for seed, score in zip(measured.seeds, measured.alone.tolist(), strict=True):
                by_seed[seed][layer] = score
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
    grid = _grid(records)
    base = _at_one_rate([record for record in records if record.run.kind == "base"])
    full = [record for record in records if record.run.kind == "full"]
    together = _measured(full, grid)
    by_layer: dict[int, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.run.layer is not None:
            by_layer[record.run.layer].append(record)
    begun = {layer: _finished(runs, grid) for layer, runs in sorted(by_layer.items())}
    measured = {layer: _measured(runs, grid) for layer, runs in begun.items() if runs}
    layers = {layer: found for layer, found in measured.items() if found is not None}
    if base is None or together is None or not layers:
        lacking = "base score" if base is None else "full run" if together is None else "layer"
        raise LayerpickError(
            f"The sweep of {records[0].settings.model} has no finished {lacking} yet: run "
            f"`layerpick sweep` to its end."
        )
    own = records[0].settings.rates == "own"
    return Reading(
        settings=records[0].settings,
        learning_rate=None if own else grid[0],
        learning_rate_grid=grid if own else records[0].learning_rate_grid,
        base=base,
        full=together,
        layers=layers,
        failed={
            layer: next(str(run.reason) for run in begun[layer] if run.status == "failed")
            for layer, found in measured.items()
            if found is None
        },
        unfinished=tuple(layer for layer, runs in begun.items() if own and not runs),
        cut=_share_cut(records),
        seconds=sum(record.seconds for record in records),
        tokens=sum(record.tokens for record in records),
    )


def _grid(records: Sequence[RunRecord]) -> tuple[float, ...]:
    """The rates to read, ascending: all that policies were trained at, or the shared one.

    A shared one is that of the layers, or else that of the full run with most seeds.
    """
    runs = [record for record in records if record.run.kind == "layer"]
    if records[0].settings.rates == "own" or not runs:
        runs += [record for record in records if record.run.kind == "full"]
    rates = [record.run.learning_rate for record in runs if record.run.learning_rate is not None]
    if records[0].settings.rates == "own":
        return tuple(sorted(set(rates)))
    return (max(set(rates), key=lambda rate: (rates.count(rate), -rate)) if rates else 0.0,)


def _finished(records: Sequence[RunRecord], grid: Sequence[float]) -> list[RunRecord]:
    """A policy's runs in the seeds that have one at every rate of the grid."""
    found: dict[int, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.run.learning_rate in grid:
            found[record.run.seed].append(record)
    return [record for runs in found.values() if len(runs) == len(grid) for record in runs]


def _measured(records: Sequence[RunRecord], grid: tuple[float, ...]) -> Measured | None:
    """One policy's finished runs at the best rate for it; None where no rate can be used.

    A rate of several can be used if the policy failed in no seed.
    """
    by_rate = {
        rate: [record for record in _finished(records, grid) if record.run.learning_rate == rate]
        for rate in grid
    }
    if len(grid) == 1:
        return _at_one_rate(by_rate[grid[0]], grid)
    usable = {
        rate: found
        for rate, runs in by_rate.items()
        if all(run.status == "done" for run in runs) and (found := _at_one_rate(runs, (rate,)))
    }
    if not usable:
        return None
    scores = np.array([found.scores for found in usable.values()])
    chosen = [list(usable)[rate] for rate in chosen_rates(scores)]
    return Measured(
        scores=cross_fitted(scores),
        seeds=next(iter(usable.values())).seeds,
        curve=_mean_curve([usable[rate].curve for rate in chosen]),
        alone=np.array([cross_fitted(scores[:, [s]]).mean() for s in range(scores.shape[1])]),
        rates=tuple(chosen),
        failures=_failures(records),
    )


def _at_one_rate(records: Sequence[RunRecord], rates: tuple[float, ...] = ()) -> Measured | None:
    done = sorted((r for r in records if r.status == "done"), key=lambda record: record.run.seed)
    if not done:
        return None
    scores = np.array([record.prompt_scores for record in done])
    return Measured(
        scores=scores,
        seeds=tuple(record.run.seed for record in done),
        curve=_mean_curve([record.curve for record in done]),
        alone=scores.mean(axis=1),
        rates=rates,
        failures=_failures(records),
    )


def _mean_curve(curves: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    shortest = min(len(curve) for curve in curves)
    return tuple(np.mean([curve[:shortest] for curve in curves], axis=0).tolist())


def _failures(records: Sequence[RunRecord]) -> tuple[str, ...]:
    return tuple(str(record.reason) for record in records if record.status == "failed")


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


def _share_cut(records: Sequence[RunRecord]) -> float | None:
    shares = [record.cut for record in records if record.cut is not None]
    return float(np.mean(shares)) if shares else None
