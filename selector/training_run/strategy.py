"""What trains: some layers alone, everything, or everything with some layers at a higher rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from layerpick.selector.suggestion.result import Suggestion
from layerpick.selector.training_run.settings import RACE, StrategyChoice
from layerpick.selector.verification.find import find_reading
from layerpick.selector.verification.run import in_words
from layerpick.training.errors import LayerpickError
from layerpick.training.models.choosing import choose_layers, needs_ranking
from layerpick.training.models.freezing import Boost
from layerpick.training.sweeps.multiplexed import Bench


@dataclass(frozen=True)
class Strategy:
    """What a run trains, and why."""

    layers: tuple[int, ...] | None
    """Decoder layers; None: every parameter."""
    boost: Boost | None
    """Layers at a multiple of the rate, where everything trains."""
    chosen: str
    """How they were chosen, in words."""
    learning_rate: float | None = None
    """That a suggestion advises for them, if it does."""

    @property
    def in_words(self) -> str:
        """What trains."""
        return in_words(self.layers, self.boost)


@dataclass(frozen=True)
class _Ranking:
    """Layers, best first, and whose order that is."""

    layers: tuple[int, ...]
    source: str
    learning_rate: float | None = None
    """Advised for the first of them."""


FULL = Strategy(None, None, "everything")
"""Full-parameter RL."""


def check_choice(choice: StrategyChoice) -> None:
    """Raise LayerpickError for options that contradict each other."""
    if choice.boost is not None and choice.layer != StrategyChoice.layer:
        raise LayerpickError("With --boost everything trains: leave --layer out.")
    if choice.boost in ("all", "auto", RACE):
        raise LayerpickError(f"--boost {choice.boost}: name layers, as top:3, 10,11 or middle:5.")
    if choice.layer == RACE and choice.by_sweep is not None:
        raise LayerpickError("--layer race takes its arms from a suggestion: leave --by-sweep out.")
    if choice.boost is not None and choice.boost_factor <= 0:
        raise LayerpickError("--boost-factor must be above 0.")


def choose_strategy(
    choice: StrategyChoice, bench: Bench, advise: Callable[[], Suggestion]
) -> Strategy:
    """The layers of this model that a choice means; `advise` is asked where a ranking is needed.

    Raises LayerpickError for layers that the model has not, and where no sweep fits.
    """
    check_choice(choice)
    text = choice.boost or choice.layer
    if text == "all":
        return FULL
    ranking = _rank(choice, bench, advise) if needs_ranking(text) else None
    option = "--layer" if choice.boost is None else "--boost"
    order = ranking.layers if ranking else None
    layers = choose_layers(text, len(bench.model.layers), order, option=option)
    chosen = f"{text} by {ranking.source}" if ranking else f"{option} {text}"
    if choice.boost is not None:
        return Strategy(None, Boost(layers, choice.boost_factor), chosen)
    rate = ranking.learning_rate if ranking and text == "auto" else None
    return Strategy(layers, None, chosen, rate)


def folder_name(choice: StrategyChoice) -> str:
    """A run's folder, by what it trains."""
    text = (choice.boost or choice.layer).replace(",", "-").replace(":", "-")
    return f"boost-{text}-x{choice.boost_factor:g}" if choice.boost else text


def _rank(choice: StrategyChoice, bench: Bench, advise: Callable[[], Suggestion]) -> _Ranking:
    if choice.by_sweep is None:
        suggestion = advise()
        best = suggestion.ranked[0]
        low, high = best.interval
        source = (
            f"prediction (layer {best.layer} first, {best.predicted:.2f}, {low:.2f} … {high:.2f})"
        )
        ranked = tuple(each.layer for each in suggestion.ranked)
        return _Ranking(ranked, source, suggestion.learning_rate)
    settings = bench.run_settings("trl")
    reading = find_reading(choice.by_sweep, *settings.about)
    if reading is None:
        raise LayerpickError(
            f"{choice.by_sweep} holds no sweep of {settings.model} on this task with "
            f"{settings.algorithm}: give another --by-sweep, or leave it out."
        )
    scores = {layer: measured.score.mean for layer, measured in reading.layers.items()}
    order = sorted(scores, key=lambda layer: -scores[layer])
    other = "" if reading.settings.data_hash == settings.data_hash else " of other data"
    return _Ranking(tuple(order), f"a measured sweep{other} ({choice.by_sweep})")
