"""What a measured sweep says: contributions with errors, the best layer and its equals.

Two measures. The contribution of a layer is its share of the full-parameter gain; it means nothing
where full-parameter RL gained nothing, collapsed, or did so in some seeds only (`refusal`). Shares
of the best layer's gain need no full run and rank the same; what a pick loses of them is the share
lost. Both come with errors paired by prompt and seed (`calibration.sweeps.paired`), and whether two
layers can be told apart is judged on the error of their difference.

Rates. A sweep at a shared rate has one score for each policy and seed. One with own rates has
several, and `calibration.sweeps.rates` makes one of them; all else is read the same way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from layerpick.calibration.sweeps.paired import (
    Measured,
    aligned,
    difference,
    paired_difference,
    share,
)
from layerpick.calibration.sweeps.rates import chosen_rates, cross_fitted
from layerpick.calibration.sweeps.values import Score, Sweep
from layerpick.training.errors import LayerpickError
from layerpick.training.sweeps.records import RunRecord, RunSettings

SIGNIFICANT = 2.0
"""Standard errors that a difference must exceed to count."""


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
    def in_words(self) -> str:
        """Its seeds, and whether policies have rates of their own."""
        seeds = len(self.full.seeds)
        own = ", each policy at its own learning rate" if self.settings.rates == "own" else ""
        return f"{seeds} seed{'s' if seeds > 1 else ''}{own}"

    @property
    def gain(self) -> Score:
        """S_full − S_base, paired by prompt."""
        return paired_difference(self.full, self.base)

    @property
    def refusal(self) -> str | None:
        """Why contributions mean nothing here, if so.

        With g_s ± e_s the full-parameter gain of seed s and its standard error over prompts, and
        g ± e the gain over all seeds: the seeds contradict each other if the largest and the
        smallest g_s differ by more than |g|, by more than two standard errors of
        (max g_s − min g_s) − |g|, paired by prompt. Else g must be more than 2 e above zero.
        """
        return _contradiction(self.full, self.base) or no_gain(self.gain)

    @property
    def best_gain(self) -> Score:
        """S_best − S_base, paired by prompt."""
        return paired_difference(self.layers[self.best], self.base)

    @property
    def nothing_gained(self) -> str | None:
        """Why shares of the best layer's gain mean nothing here, if so."""
        gain, error = self.best_gain.mean, self.best_gain.error or 0.0
        if gain > SIGNIFICANT * error:
            return None
        return (
            f"The best layer gained {gain:+.3f} ± {error:.3f}, not more than two standard errors "
            f"above zero: there is nothing to rank."
        )

    def contribution(self, layer: int) -> Score:
        """C(k) = (S_k − S_base) / (S_full − S_base); meaningless where `refusal` says so."""
        return share(self.layers[layer], self.base, self.full)

    def share_of_best(self, layer: int) -> Score:
        """(S_k − S_base) / (S_best − S_base); meaningless where `nothing_gained` says so.

        The best layer's own is 1 without error: S_best is taken as it was measured.
        """
        return share(self.layers[layer], self.base, self.layers[self.best])

    def below_best(self, layer: int) -> Score:
        """S_best − S_k, paired by prompt and seed: what tells the two layers apart."""
        return paired_difference(self.layers[self.best], self.layers[layer])

    @property
    def ranked(self) -> tuple[int, ...]:
        """The layers from the highest score to the lowest."""
        return tuple(sorted(self.layers, key=lambda layer: -self.layers[layer].score.mean))

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
            contributions={}
            if self.refusal
            else {layer: self.contribution(layer) for layer in self.layers},
            source="measured",
        )

    @property
    def best(self) -> int:
        """The layer with the highest score."""
        return max(self.layers, key=lambda layer: self.layers[layer].score.mean)

    @property
    def equals(self) -> tuple[int, ...]:
        """Other layers whose score is within two standard errors of the best one's."""
        gaps = {layer: self.below_best(layer) for layer in self.layers if layer != self.best}
        return tuple(
            layer for layer, gap in gaps.items() if gap.mean <= SIGNIFICANT * (gap.error or 0.0)
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
    if gain.mean < -SIGNIFICANT * error:
        return (
            f"The full-parameter run ended {-gain.mean:.3f} ± {error:.3f} below the base model: "
            f"shares of its gain are not defined. Train it at a lower learning rate."
        )
    return (
        f"The full-parameter run gained {gain.mean:+.3f} ± {error:.3f}, not more than two standard "
        f"errors above zero: shares of it are not defined. Train longer or at another learning "
        f"rate, or score on more held-out prompts."
    )


def read_sweep(records: Sequence[RunRecord]) -> Reading:
    """Gather the records of one sweep.

    Raises LayerpickError when the base score, the full run or every layer is missing.
    """
    grid = rates_read(records)
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


def rates_read(records: Sequence[RunRecord]) -> tuple[float, ...]:
    """The rates to read, ascending: those of the sweep's grid, or the shared one.

    The grid is that of the full runs, for a race leaves layers with a grid of its own. A shared
    rate is that of the layers, or else that of the full run with most seeds.
    """
    full = [record for record in records if record.run.kind == "full"]
    layers = [record for record in records if record.run.kind == "layer"]
    if records[0].settings.rates == "own":
        return tuple(sorted({r for record in full or layers for r in record.learning_rate_grid}))
    runs = layers or full
    rates = [record.run.learning_rate for record in runs if record.run.learning_rate is not None]
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


def _contradiction(full: Measured, base: Measured) -> str | None:
    """What the seeds' full runs say, if they contradict each other: see `Reading.refusal`."""
    trained, untrained = aligned(full, base)
    gains = trained - untrained
    by_seed = gains.mean(axis=1)
    apart = gains[by_seed.argmax()] - gains[by_seed.argmin()]
    mean = gains.mean(axis=0) * np.sign(gains.mean())
    excess = difference((apart - mean)[None])
    if excess.mean <= SIGNIFICANT * (excess.error or 0.0):
        return None
    listed = (difference(seed[None]) for seed in gains)
    return (
        f"The full-parameter runs of the seeds contradict each other, gaining "
        f"{', '.join(f'{gain.mean:+.3f} ± {gain.error:.3f}' for gain in listed)}: shares of their "
        f"mean are not defined. Train them at a lower learning rate, or with more seeds."
    )


def _share_cut(records: Sequence[RunRecord]) -> float | None:
    shares = [record.cut for record in records if record.cut is not None]
    return float(np.mean(shares)) if shares else None
