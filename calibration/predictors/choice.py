"""Which regressor to use: leave-one-model-out, inside whatever has been left out already.

Predictions of left-out models are kept, because an outer fold leaving out A with an inner one
leaving out B needs the same fit as the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerpick.calibration.judging.metrics import regret, spearman
from layerpick.calibration.predictors.design import Design
from layerpick.calibration.predictors.estimator import fit_rows, inputs
from layerpick.calibration.predictors.regressors import BLENDED, CANDIDATES, Blend, Regressor
from layerpick.training.errors import LayerpickError

FEWEST_MODELS = 3
"""Models without which none can be left out in turn."""
Progress = Callable[[int], None]


class LeftOut:
    """Predictions of models by regressors fitted without them."""

    def __init__(self, design: Design):
        self.design = design
        self._inputs = inputs(design)
        self._kept: dict[tuple[Regressor, frozenset[str]], np.ndarray] = {}

    def predictions(self, regressor: Regressor, models: frozenset[str]) -> np.ndarray:
        """(rows,), float64: predictions of the rows of these models, not a number elsewhere."""
        if isinstance(regressor, Blend):
            return np.mean([self.predictions(each, models) for each in BLENDED], axis=0)
        if (regressor, models) not in self._kept:
            out = self.design.rows_of(models)
            found = np.full(len(out), np.nan)
            found[out] = fit_rows(self.design, ~out, regressor).predict(self._inputs[out])
            self._kept[regressor, models] = found
        return self._kept[regressor, models]


@dataclass(frozen=True)
class Choice:
    """The regressor chosen, and the criterion of all of them."""

    regressor: Regressor
    criteria: Mapping[str, float]
    """By regressor: mean over left-out models of Spearman's ρ minus regret."""


def choose(
    left_out: LeftOut,
    models: frozenset[str],
    candidates: Sequence[Regressor] | None = None,
    done: Progress = lambda _: None,
) -> Choice:
    """Choose by the models not in `models`, each left out in turn together with these.

    The criterion is the mean of ρ − regret, over the sweeps of a model and then over models.
    `done` is told of each candidate. Raises LayerpickError with fewer than `FEWEST_MODELS` models.
    """
    candidates = CANDIDATES if candidates is None else candidates
    inner = sorted(set(left_out.design.models.tolist()) - models)
    if len(inner) < FEWEST_MODELS:
        raise LayerpickError(
            f"A predictor needs measured sweeps of at least {FEWEST_MODELS} models, and there are "
            f"{len(inner)} with the probes of level '{left_out.design.level.name}': measure more "
            f"with `layerpick sweep`."
        )
    criteria = []
    for regressor in candidates:
        scores = [_score(left_out, regressor, models, model) for model in inner]
        criteria.append(float(np.mean(scores)))
        done(1)
    best = int(np.argmax(criteria))
    return Choice(candidates[best], {str(c): v for c, v in zip(candidates, criteria, strict=True)})


def _score(left_out: LeftOut, regressor: Regressor, outer: frozenset[str], model: str) -> float:
    design = left_out.design
    predicted = left_out.predictions(regressor, outer | {model})
    own = design.models == model
    scores = []
    for sweep in np.unique(design.sweeps[own]):
        rows = design.sweeps == sweep
        measured, guess = design.targets[rows], predicted[rows]
        scores.append(spearman(measured, guess) - regret(measured, guess))
    return float(np.mean(scores))
