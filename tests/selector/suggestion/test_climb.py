"""From cheap probes to dear ones: what is measured next, and what ends it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from layerpick.calibration.predictors import narrowing
from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.predictors.stored import calibrate
from layerpick.probes.gradient.probe import GradientProbe
from layerpick.probes.table import PROBES
from layerpick.probes.trials.one_step import OneStepProbe
from layerpick.selector.progress import Silent
from layerpick.selector.settings import RolloutChoice
from layerpick.selector.suggestion import climb
from layerpick.selector.suggestion import run as suggesting
from layerpick.selector.suggestion.budget import read_budget
from layerpick.selector.suggestion.command import wanted_probes
from layerpick.selector.suggestion.expected import levels_that_tell_more
from layerpick.selector.suggestion.report import sentences
from layerpick.selector.suggestion.run import suggest
from layerpick.training.errors import LayerpickError


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.said: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)


def test_budgets_are_minutes_or_shares():
    assert read_budget("10", 0.9).amount == 10 and not read_budget("10", 0.9).is_share
    assert read_budget("5%", 0.9).amount == 0.05 and read_budget("5%", 0.9).is_share
    for wrong in ("0", "-3", "soon", "5 %%", "inf", "nan"):
        with pytest.raises(LayerpickError, match="--budget"):
            read_budget(wrong, 0.9)


@pytest.fixture
def predictors(made_examples, monkeypatch):
    """Predictors of every level but the off-policy one, fitted on made-up sweeps."""
    table: dict = {}
    monkeypatch.setattr(suggesting, "available_predictors", lambda: table)

    def fit(suggestion, *levels, worth=(0.1, 0.2, 0.3)):
        features = suggestion.layers[suggestion.pick].features
        for name, criterion in zip(levels, worth, strict=False):
            generator = np.random.default_rng(0)
            examples = []
            for example in made_examples(4):
                own = {
                    probe: {
                        feature: generator.normal(size=example.layers)
                        for feature in features
                        if feature in known(probe)
                    }
                    for probe in LEVELS[name].probes
                }
                examples.append(replace(example, features=own))
            made = calibrate(examples, LEVELS[name])
            lessons = {
                population: lesson.model_copy(update={"criteria": {"made up": criterion}})
                for population, lesson in made.lessons.items()
            }
            table[name] = made.model_copy(update={"lessons": lessons})
        return table

    return fit


def known(probe: str) -> set[str]:
    from layerpick.probes.table import PROBES

    return {info.name for info in PROBES[probe].features}


def test_levels_are_measured_while_there_is_time(predictors):
    few = RolloutChoice(prompts=8)
    everything = suggest(rollouts=few, probes=list(LEVELS["one_step"].probes))
    predictors(everything, "backward", "one_step")
    notes = Notes()
    whole = suggest(rollouts=few, reporter=notes)
    assert [probe.name for probe in whole.cost.probes] == list(LEVELS["one_step"].probes)
    assert whole.stopped is None and not whole.further
    (plan,) = (note for note in notes.said if note.startswith("Plan: "))
    assert (
        plan.index("backward after") < plan.index("one_step after") < plan.index("at most 10 min")
    )
    short = suggest(rollouts=few, spending=read_budget("0.0001%"))
    assert [probe.name for probe in short.cost.probes] == list(LEVELS["backward"].probes)
    assert "the level one_step needs about" in short.stopped
    sure = suggest(rollouts=few, spending=read_budget("30", 0.01))
    assert sure.stopped.startswith("certain enough")
    assert len(sure.cost.probes) == len(LEVELS["backward"].probes)


def test_levels_that_rank_no_better_are_skipped(predictors, monkeypatch):
    monkeypatch.setattr(narrowing, "OUT_OF_THE_QUESTION", 0.3)
    few = RolloutChoice(prompts=8)
    everything = suggest(rollouts=few, probes=list(LEVELS["off_policy"].probes))
    table = predictors(everything, "backward", "one_step", "off_policy", worth=(0.3, 0.3, 0.5))
    climbed = suggest(rollouts=few)
    assert [probe.name for probe in climbed.cost.probes] == list(LEVELS["off_policy"].probes)
    # The dear probe has measured the layers that may be best, and no others.
    trained = [layer for layer in climbed.layers if "off_policy_5_gain" in layer.features]
    assert len(trained) < len(climbed.layers) and climbed.layers[climbed.pick] in trained
    names = [level.name for level in levels_that_tell_more(table, "from scratch")]
    assert names == ["off_policy"]


def test_a_pretrained_model_is_advised_a_rate_by_a_step_of_the_layers_that_may_be_best(
    tiny, settings, few, short, monkeypatch
):
    folder = str(tiny("qwen3").folder)
    monkeypatch.setattr(climb, "levels_that_tell_more", lambda *_: [])

    def asked(**more):
        return suggest(folder, settings=settings, rollouts=few, sampling=short, **more)

    notes = Notes()
    found, fast = asked(reporter=notes), asked(probes=LEVELS["backward"].probes)
    assert any("the learning rate after" in note for note in notes.said)
    stepped = [layer.layer for layer in found.layers if "long_step_kl" in layer.features]
    assert sorted(stepped) == sorted(found.shortlist)
    assert found.learning_rate is not None and fast.learning_rate is None
    # It ranks nothing.
    assert [x.predicted for x in found.layers] == [x.predicted for x in fast.layers]
    short_of_time = asked(spending=read_budget("0.00001%"))
    assert short_of_time.learning_rate is None


def test_ctrl_c_answers_with_what_is_there(predictors, monkeypatch):
    few = RolloutChoice(prompts=8)
    everything = suggest(rollouts=few, probes=list(LEVELS["one_step"].probes))
    predictors(everything, "backward", "one_step")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as afterwards:
        afterwards.setattr(climb, "_joined", interrupted)
        assert suggest(rollouts=few).stopped == "by Ctrl-C, while measuring one_step"
    monkeypatch.setattr(OneStepProbe, "measure", interrupted)
    found = suggest(rollouts=few)
    assert found.stopped == "by Ctrl-C, while measuring one_step"
    fast = suggest(rollouts=few, probes=LEVELS["backward"].probes)
    assert [layer.predicted for layer in found.layers] == [layer.predicted for layer in fast.layers]
    monkeypatch.setattr(GradientProbe, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        suggest(rollouts=few)


def test_what_dearer_levels_would_take_is_said(predictors):
    few = RolloutChoice(prompts=8)
    everything = suggest(rollouts=few, probes=list(LEVELS["off_policy"].probes))
    predictors(everything, "backward", "one_step", "off_policy")
    plain = suggest(rollouts=few, probes=LEVELS["backward"].probes)
    assert list(plain.further) == ["one_step", "off_policy"]
    assert 0 < 2 * plain.further["one_step"] < plain.further["off_policy"]
    (line,) = (line for line in sentences(plain) if line.startswith("Not measured, and tell more"))
    assert "one_step (about" in line
    assert not suggest(rollouts=few, probes=["weights"]).further


def test_only_without_any_predictor_is_position_all_that_counts(predictors, monkeypatch):
    few = RolloutChoice(prompts=8)
    near = suggest(rollouts=few, probes=LEVELS["weights"].probes)
    predictors(near, "weights")
    assert "measured sweeps" in suggest(rollouts=few, probes=LEVELS["weights"].probes).basis
    monkeypatch.setattr(suggesting, "available_predictors", dict)
    far = suggest(rollouts=few, probes=LEVELS["weights"].probes)
    assert far.basis.startswith("position only")


def test_what_is_measured_first_costs_about_as_much_as_the_rollouts():
    from layerpick.calibration.predictors.levels import FIRST

    assert LEVELS[FIRST].probes == ("weights", "hidden", "gradient")


def test_levels_are_narrowed_where_they_add_a_probe_that_is_dear_by_layer():
    before: tuple[str, ...] = ()
    for level in LEVELS.values():
        added = [name for name in level.probes if name not in before]
        assert level.narrowed == any(PROBES[name].of_candidates for name in added)
        assert not level.narrowed or added == [level.probes[-1]]
        before = level.probes


def test_options_name_probes_or_leave_them_open(tmp_path):
    plain = RolloutChoice()
    also = RolloutChoice(also=tmp_path / "other.safetensors")
    assert wanted_probes(None, False, None, plain) is None
    assert wanted_probes(None, True, None, plain) == "weights,hidden,gradient"
    assert wanted_probes("weights", False, None, plain) == "weights"
    assert wanted_probes(None, True, "5", plain) == "weights,hidden,gradient,warm_up"
    assert wanted_probes(None, False, "5", plain).split(",") == [*LEVELS["on_policy"].probes]
    assert wanted_probes("weights", False, None, also) == "weights,gradient"


def test_the_part_of_a_stored_warm_up_is_that_of_the_probes_own_sizes():
    from layerpick.calibration.predictors import levels
    from layerpick.probes.base import ProbeSizes

    sizes = ProbeSizes()
    assert sizes.on_policy_episodes == levels.EPISODES_OF_A_STEP
    assert sizes.judged_prompts * sizes.judged_samples == levels.EPISODES_OF_A_JUDGEMENT
    assert pytest.approx(448 / 1664) == levels.WARM_UP_PART
