"""Prediction beside measurement, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from layerpick.calibration.sweeps.store import FolderStore, sweep_folder
from layerpick.calibration.sweeps.values import Score
from layerpick.selector.suggestion.result import (
    Cost,
    LayerSuggestion,
    ModelSummary,
    RolloutSummary,
    Savings,
    Suggestion,
    TaskSummary,
)
from layerpick.selector.verification.find import find_measured, find_reading, full_score
from layerpick.selector.verification.picture import draw_verification
from layerpick.selector.verification.report import headline, sentences
from layerpick.selector.verification.run import verify_pair, verify_run, verify_suggestion
from layerpick.training.errors import LayerpickError
from layerpick.training.runs.folder import (
    PolicyScore,
    RunDescription,
    RunFolder,
    RunResult,
    TrainingCost,
)
from layerpick.training.sweeps.records import RunKey, RunRecord, RunSettings

SETTINGS = RunSettings(
    model="tiny",
    revision=None,
    weights_hash="ab",
    layers=4,
    dtype="float32",
    task="math",
    source="sums",
    data_hash="cd",
    task_settings_hash="ef",
    algorithm="grpo",
    engine="multiplexed",
    steps=2,
    prompts=2,
    group_size=2,
    max_new_tokens=4,
    max_turns=1,
    temperature=1.0,
    epsilon=0.2,
    beta=0.0,
    max_grad_norm=1.0,
    heldout_prompts=2,
    heldout_samples=2,
    prompts_hash="01",
)
# Each of two prompts; standard errors over them are 0.01 to 0.04.
BASE, FULL = (0.19, 0.21), (0.68, 0.72)
LAYERS = {0: (0.42, 0.48), 1: (0.59, 0.61), 2: (0.34, 0.26), 3: (0.74, 0.76)}
CONTRIBUTIONS = {0: 0.5, 1: 0.8, 2: 0.2, 3: 1.1}


def record(kind, scores, layer=None):
    return RunRecord(
        run=RunKey(kind=kind, seed=0, learning_rate=None if kind == "base" else 1e-3, layer=layer),
        settings=SETTINGS,
        learning_rate_grid=(1e-3,),
        status="done",
        curve=(0.1, 0.2),
        score=float(np.mean(scores)),
        error=0.01,
        prompt_scores=scores,
        tokens=10,
        seconds=1.0,
        policies_in_pass=1,
        device="cpu",
        versions={},
    )


@pytest.fixture
def sweep(tmp_path):
    """A measured sweep of four layers."""
    folder = tmp_path / "sweeps" / "tiny" / "math-grpo"
    records = [record("base", BASE), record("full", FULL)]
    FolderStore(folder).write(records + [record("layer", s, k) for k, s in LAYERS.items()])
    return tmp_path / "sweeps"


def reading(sweep):
    return find_reading(sweep, "ab", "math", "grpo", "cd")


def suggestion(pick=1, predicted=(0.5, 0.9, 0.4, 0.6), weights="ab"):
    return Suggestion(
        pick=pick,
        basis="a test",
        measured_by=None,
        coverage=0.9,
        layers=tuple(
            LayerSuggestion(
                layer=layer,
                depth=layer / 3,
                predicted=value,
                interval=(value - 0.15, value + 0.15),
                chance_best=0.25,
                measured=None,
                features={},
            )
            for layer, value in enumerate(predicted)
        ),
        model=ModelSummary(
            id="tiny",
            revision=None,
            weights_hash=weights,
            layers=4,
            parameters=100,
            dtype="float32",
            device="cpu",
        ),
        task=TaskSummary(name="math", algorithm="grpo", source="sums", data_hash="cd"),
        rollouts=RolloutSummary(
            prompts=2,
            group_size=2,
            groups_with_signal=2,
            mean_reward=0.2,
            reward_error=0.1,
            tokens=10,
            temperature=1.0,
            max_new_tokens=4,
            failures=0,
        ),
        cost=Cost(
            seconds=1.0,
            load_seconds=0.1,
            sampling_seconds=0.1,
            sampled_tokens=10,
            probe_tokens=10,
            peak_bytes=1,
            probes=(),
        ),
        savings=Savings(
            trainable_parameters=10,
            full_parameters=100,
            training_bytes=120,
            full_training_bytes=1200,
        ),
        seed=0,
        versions={},
    )


def finished_run(path, layers=(3,), base=BASE, trained=(0.64, 0.66), **others):
    folder = RunFolder(path)
    folder.open(
        RunDescription(
            settings=SETTINGS.model_copy(update={"engine": "trl", **others}),
            layers=layers,
            learning_rate=1e-3,
            seed=0,
            micro_batch=None,
            gradient_checkpointing=False,
            vllm=None,
            trl={},
        )
    )
    cost = TrainingCost(
        steps=2,
        trainable_parameters=10,
        optimizer_bytes=80,
        sampling_seconds=1.0,
        update_seconds=1.0,
        tokens=10,
    )
    scores = [PolicyScore(mean=float(np.mean(s)), error=0.01, by_prompt=s) for s in (base, trained)]
    folder.finish(
        RunResult(
            cost=cost,
            base=scores[0],
            trained=scores[1],
            full_parameters=100,
            device="cpu",
            versions={},
        )
    )
    return folder


def paired(single):
    """Contribution and its error, by prompt: prompts are the same for all three policies."""
    gains = [s - b for s, b in zip(single, BASE, strict=True)]
    whole = [f - b for f, b in zip(FULL, BASE, strict=True)]
    share = sum(gains) / sum(whole)
    rest = [g - share * w for g, w in zip(gains, whole, strict=True)]
    return share, abs(rest[0] - rest[1]) / 2 / (sum(whole) / 2)  # of two numbers: half their gap


def test_a_suggestion_against_a_sweep(sweep):
    found = verify_suggestion(suggestion(), reading(sweep))
    assert {x.layer: x.measured for x in found.layers} == pytest.approx(CONTRIBUTIONS)
    own = reading(sweep)
    for layer in found.layers:
        expected = paired(LAYERS[layer.layer])
        assert (layer.measured, layer.error) == pytest.approx(expected, rel=1e-6)
        # One contribution, one error: `sweep --show` says the same.
        assert layer.error == own.contribution(layer.layer).error
        assert layer.score == pytest.approx(sum(LAYERS[layer.layer]) / 2)
    assert found.share_lost == pytest.approx((0.75 - 0.60) / (0.75 - 0.20))
    assert found.share_lost_error == pytest.approx(0.0, abs=1e-9)  # both layers answer alike
    assert found.pick.layer == 1 and found.pick.predicted == 0.9
    assert (found.rank, found.best) == (2, 3)
    assert found.regret == pytest.approx(1.1 - 0.8)
    # Layer 0: 0.5 in 0.35 … 0.65; 1: 0.8 in 0.75 … 1.05; 2: 0.2 not in 0.25 …; 3: 1.1 not.
    assert found.interval_held is True and found.intervals_held == 0.5
    # Ranks predicted 2 4 1 3, measured 2 3 1 4: ρ = 1 − 6 · 2 / (4 · 15).
    assert found.rank_correlation == pytest.approx(0.8)
    assert found.refusal is None and found.noise_ceiling is None
    text = " ".join(sentences(found))
    assert "Rank 2 of 4 measured layers (the best is layer 3); regret 0.30; share of" in text
    told = (
        "recovers 0.80 ± 0.02 of the full-parameter gain: rank 2 of 4 measured layers (the best is"
    )
    assert told in headline(found)
    assert "gain lost 0.27 ± 0.00." in text
    assert "the interval 0.75 … 1.05 held" in text


def test_a_run_against_a_sweep(sweep, tmp_path):
    """The run's own score counts, not the sweep's of that layer."""
    run = finished_run(tmp_path / "run", steps=7)
    found = verify_run(run, suggestion(pick=3), reading(sweep))
    expected = paired((0.64, 0.66))
    assert (found.pick.measured, found.pick.error) == pytest.approx(expected, rel=1e-6)
    assert (found.rank, found.best, found.regret, found.share_lost) == (1, 3, 0.0, 0.0)
    assert found.interval_held is False  # 0.45 … 0.75
    assert found.differences == ("steps: 7 here, 2 there",)
    told = "gain measured with other settings (steps: 7 here, 2 there)"
    assert told in headline(found)


def test_a_run_on_other_prompts_is_not_paired(sweep, tmp_path):
    run = finished_run(tmp_path / "run", (0,), prompts_hash="other", base=(0.29, 0.31))
    found = verify_run(run, suggestion(pick=0), reading(sweep))
    assert found.pick.measured == pytest.approx((0.65 - 0.3) / (0.7 - 0.3))
    assert found.pick.error > 0 and found.share_lost_error is None
    assert found.differences == ("prompts_hash: other here, 01 there",)


def test_what_was_measured_otherwise_is_told(sweep, tmp_path):
    other = suggestion()
    other = other.model_copy(update={"task": other.task.model_copy(update={"data_hash": "xy"})})
    found = verify_suggestion(other, reading(sweep))
    assert found.differences == ("data_hash: xy here, cd there",)
    assert "Measured with other settings:[/bold] data_hash" in " ".join(sentences(found))
    assert verify_suggestion(suggestion(), reading(sweep)).differences == ()
    two = finished_run(tmp_path / "two", (1, 3), steps=7)
    assert verify_run(two, None, reading(sweep)).differences == ("steps: 7 here, 2 there",)
    full = finished_run(tmp_path / "full", layers=None, trained=FULL, weights_hash="xy")
    with pytest.raises(LayerpickError, match="full-parameter run of tiny is about other weights"):
        verify_pair(two, None, full)
    longer = finished_run(tmp_path / "longer", layers=None, trained=FULL, steps=9)
    assert verify_pair(two, None, longer).differences == ("steps: 7 here, 9 there",)


def test_a_sweep_without_contributions_still_ranks(sweep):
    (folder,) = sweep.glob("*/*")
    (folder / "full-lr0.001-seed0.json").unlink()
    FolderStore(folder).write([record("full", (0.01, 0.02))])
    found = verify_suggestion(suggestion(), reading(sweep))
    assert "below the base model" in found.refusal
    assert all(layer.measured is None for layer in found.layers) and found.regret is None
    assert (found.rank, found.best) == (2, 3)
    assert found.share_lost == pytest.approx((0.75 - 0.60) / (0.75 - 0.20))
    assert found.rank_correlation == pytest.approx(0.8)
    text = " ".join(sentences(found))
    assert "No contributions." in text and "Rank 2 of 4" in text and "regret" not in text


def test_a_run_with_only_a_full_score(tmp_path):
    run = finished_run(tmp_path / "run")
    found = verify_pair(run, None, Score(0.7, 0.01))
    assert found.pick.measured == pytest.approx(0.9)
    # (S − 0.1 base) by prompt is 0.621 and 0.639; the full score's own error counts 0.9 times.
    assert found.pick.error == pytest.approx(math.hypot(0.009, 0.009) / 0.5, rel=1e-6)
    full = finished_run(tmp_path / "full", layers=None, trained=FULL)
    by_prompt = verify_pair(run, None, full_score(str(full.path)))
    expected = paired((0.64, 0.66))
    assert (by_prompt.pick.measured, by_prompt.pick.error) == pytest.approx(expected, rel=1e-6)
    other = finished_run(tmp_path / "other", layers=None, trained=FULL, prompts_hash="other")
    assert verify_pair(run, None, other).pick.error > by_prompt.pick.error
    assert found.rank is None and found.regret is None and found.refusal is None
    assert verify_pair(run, None, Score(0.7)).pick.error is None
    alone = verify_pair(run, None, None)
    assert alone.pick.measured is None and "give --full or --sweep" in alone.refusal
    nothing = verify_pair(run, None, Score(0.21, 0.01))
    assert nothing.pick.measured is None and "two standard errors above zero" in nothing.refusal


def test_of_several_data_sets_the_one_asked_for_is_found(sweep):
    folder = sweep_folder(sweep, "tiny", "math", "grpo", "math-other")
    other = SETTINGS.model_copy(update={"data_hash": "other"})
    records = [record("base", BASE), record("full", FULL), record("layer", LAYERS[0], 0)]
    FolderStore(folder).write([r.model_copy(update={"settings": other}) for r in records])
    for data, layers in (("cd", [0, 1, 2, 3]), ("other", [0])):
        found = find_reading(sweep, "ab", "math", "grpo", data)
        assert (found.settings.data_hash, list(found.layers)) == (data, layers)
        assert list(find_measured("tiny", "ab", "math", "grpo", data, sweep).layers) == layers
    assert find_reading(sweep, "ab", "math", "grpo", "third").settings.data_hash == "cd"
    assert find_measured("tiny", "ab", "math", "grpo", "third", sweep) is None
    notes = []
    for path in sweep.rglob("full*"):
        path.unlink()
    assert find_measured("tiny", "ab", "math", "grpo", "cd", sweep, notes.append) is None
    assert len(notes) == 1 and "no finished full run yet" in notes[0]
    with pytest.raises(LayerpickError, match="no name of a folder"):
        sweep_folder(sweep, "tiny", "math", "grpo", "../up")


def test_the_picture_and_the_json_are_written(sweep, tmp_path):
    found = verify_suggestion(suggestion(), reading(sweep))
    draw_verification(found, tmp_path / "v.png")
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_what_does_not_belong_together_is_refused(sweep, tmp_path):
    with pytest.raises(LayerpickError, match="about other weights"):
        verify_suggestion(suggestion(weights="xy"), reading(sweep))
    assert find_reading(sweep, "xy", "math", "grpo", "cd") is None
    run = finished_run(tmp_path / "all", layers=None)
    with pytest.raises(LayerpickError, match="no contribution of its own"):
        verify_pair(run, None, None)
    (tmp_path / "all" / "result.json").unlink()
    with pytest.raises(LayerpickError, match="is not finished"):
        verify_pair(run, None, None)
    one = finished_run(tmp_path / "one")
    with pytest.raises(LayerpickError, match="trained layer 3, not everything"):
        full_score(str(one.path))
    with pytest.raises(LayerpickError, match="neither the folder of a run nor a score"):
        full_score("much")
    assert full_score("0.7,0.02") == Score(0.7, 0.02)
