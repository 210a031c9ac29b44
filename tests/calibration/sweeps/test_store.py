"""Records of runs in a folder, and what a sweep is read to say."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.calibration.sweeps.measured import read_sweep
from layerpick.calibration.sweeps.paired import Measured, difference, share, share_of_score
from layerpick.calibration.sweeps.store import (
    FolderStore,
    read_folder,
    read_record,
    sweep_folder,
    sweep_folders,
)
from layerpick.calibration.sweeps.values import Score
from layerpick.training.errors import LayerpickError
from layerpick.training.files import as_json
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
    heldout_prompts=3,
    heldout_samples=2,
    prompts_hash="01",
)


def made(kind, seed=0, layer=None, scores=(0.0, 0.5, 1.0), rate=1e-3, status="done", **others):
    rate = None if kind == "base" else rate
    failed = status == "failed"
    return RunRecord(
        run=RunKey(kind=kind, seed=seed, learning_rate=rate, layer=layer),
        settings=SETTINGS.model_copy(update={"heldout_prompts": len(scores), **others}),
        learning_rate_grid=(1e-3,),
        status=status,
        reason="its weights are not finite" if failed else None,
        curve=(0.1, 0.2),
        score=None if failed else float(np.mean(scores)),
        error=None if failed else 0.1,
        prompt_scores=() if failed else tuple(scores),
        tokens=10,
        seconds=1.5,
        policies_in_pass=1,
        device="cpu",
        versions={"torch": "2"},
    )


def test_records_survive_the_folder(tmp_path):
    store = FolderStore(tmp_path / "sweep")
    records = [made("base"), made("layer", layer=2, status="failed"), made("layer", layer=3)]
    store.write(records)
    for record in records:
        assert store.read(record.run, SETTINGS) == record
    assert store.read(RunKey(kind="full", seed=0, learning_rate=1.0), SETTINGS) is None
    assert sorted(read_folder(store.folder), key=lambda r: r.run.name) == records
    names = {path.name for path in store.folder.iterdir()}
    assert names == {
        "base-seed0.json",
        "layer003-lr0.001-seed0.json",
        "layer002-lr0.001-seed0.json",
    }


def test_numbers_take_one_line_and_words_stay_as_they_are():
    record = made("full").model_copy(update={"reason": "no [ 1, 2 ]\n[\n 3 ]"})
    text = as_json(record)
    assert '"curve": [0.1,0.2],' in text
    assert RunRecord.model_validate_json(text) == record


def test_other_settings_are_named_not_mixed(tmp_path):
    store = FolderStore(tmp_path)
    store.write([made("base")])
    with pytest.raises(
        LayerpickError, match=r"base-seed0\.json was measured with steps = 2, not 5"
    ):
        store.read(made("base").run, SETTINGS.model_copy(update={"steps": 5}))
    store.write([made("base", seed=1, steps=7)])
    with pytest.raises(LayerpickError, match=r"base-seed1\.json was measured with other settings"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ('{"pages": 3}', "the record of a run"),
    ],
)
def test_unreadable_files_are_errors_with_their_path(tmp_path, content, message):
    FolderStore(tmp_path).write([made("base")])
    path = tmp_path / "full-lr0.001-seed0.json"
    path.write_text(content)
    for read in (
        lambda: read_folder(tmp_path),
        lambda: FolderStore(tmp_path).read(made("full").run, SETTINGS),
    ):
        with pytest.raises(LayerpickError, match=message) as raised:
            read()
        assert str(path) in str(raised.value)


def test_foreign_files_renamed_records_and_later_versions_are_errors(tmp_path):
    store = FolderStore(tmp_path)
    store.write([made("base")])
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(LayerpickError, match=r"notes\.txt is no record"):
        read_folder(tmp_path)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "base-seed0.json").rename(tmp_path / "base-seed1.json")
    with pytest.raises(LayerpickError, match="holds the run base-seed0"):
        store.read(RunKey(kind="base", seed=1), SETTINGS)
    later = json.loads((tmp_path / "base-seed1.json").read_text()) | {"schema_version": 2}
    (tmp_path / "base-seed1.json").write_text(json.dumps(later))
    with pytest.raises(LayerpickError, match="version 1"):
        read_record(tmp_path / "base-seed1.json")


def test_a_journal_left_by_a_kill_is_finished(tmp_path, monkeypatch):
    records = [made("layer", layer=layer) for layer in range(3)]
    store = FolderStore(tmp_path)
    written = []

    def dying(path, text):
        if len(written) == 2:  # the journal and one record
            raise KeyboardInterrupt
        written.append(path)
        path.write_text(text)

    monkeypatch.setattr("layerpick.calibration.sweeps.store.write_text", dying)
    with pytest.raises(KeyboardInterrupt):
        store.write(records)
    monkeypatch.undo()
    again = FolderStore(tmp_path)
    assert [again.read(record.run, SETTINGS) for record in records] == records
    assert not list(tmp_path.glob(".journal*"))


def test_a_claim_keeps_others_out_and_dies_with_its_holder(tmp_path):
    keys = [RunKey(kind="base", seed=seed) for seed in range(3)]
    code = f"""
import sys
from pathlib import Path
from layerpick.calibration.sweeps.store import FolderStore
from layerpick.training.files import as_json
from layerpick.training.sweeps.records import RunKey
with FolderStore(Path({str(tmp_path)!r})).claim([RunKey(kind="base", seed=1)]) as got:
    print(len(got), flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"1\n"
    with FolderStore(tmp_path).claim(keys) as claimed:
        assert claimed == [keys[0], keys[2]]
    other.kill()
    other.wait()
    with FolderStore(tmp_path).claim(keys) as claimed:
        assert claimed == keys


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(LayerpickError, match=f"Cannot write {tmp_path}"),
        FolderStore(tmp_path).claim([RunKey(kind="base", seed=0)]),
    ):
        pass


def test_a_place_that_is_no_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LayerpickError, match="Cannot write"),
        FolderStore(tmp_path / "file" / "sweep").claim([RunKey(kind="base", seed=0)]),
    ):
        pass


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "records.json").write_text(f"[{made('base').model_dump_json()}]")
    code = f"""
import resource, signal
from pathlib import Path
from pydantic import TypeAdapter
from layerpick.calibration.sweeps.store import FolderStore
from layerpick.training.errors import LayerpickError
from layerpick.training.files import as_json
from layerpick.training.sweeps.records import RunRecord
folder = Path({str(tmp_path)!r})
records = TypeAdapter(list[RunRecord]).validate_json((folder / "records.json").read_bytes())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # bytes a file may grow to
try:
    FolderStore(folder / "sweep").write(records)
except LayerpickError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"Cannot write {tmp_path / 'sweep'}")
    assert list((tmp_path / "sweep").iterdir()) == []


def test_folders_are_found_below_a_root(tmp_path):
    folder = sweep_folder(tmp_path, "owner/name", "math", "grpo")
    assert folder == tmp_path / "owner--name" / "math-grpo"
    FolderStore(folder).write([made("base")])
    assert sweep_folders(tmp_path) == sweep_folders(folder) == [folder]
    (tmp_path / "empty").mkdir()
    for wrong, message in (("empty", "holds no records"), ("absent", "There is no folder")):
        with pytest.raises(LayerpickError, match=message):
            sweep_folders(tmp_path / wrong)


def sweep_of(gains, seeds=2, prompts=200, full=0.4, noise=0.05):
    """Records in which layer k gains `gains[k]`, with noise by prompt."""
    generator = np.random.default_rng(0)
    shared = generator.uniform(0.2, 0.4, prompts)

    def scores(gain):
        return tuple(shared + gain + noise * generator.standard_normal(prompts))

    records = []
    for seed in range(seeds):
        records.append(made("base", seed, scores=scores(0.0)))
        records.append(made("full", seed, scores=scores(full)))
        records += [
            made("layer", seed, layer, scores=scores(gain)) for layer, gain in enumerate(gains)
        ]
    return records


def test_contributions_best_layer_and_its_equals():
    reading = read_sweep(sweep_of([0.1, 0.39, 0.4, 0.2]))
    sweep = reading.sweep
    measured = [reading.contribution(layer) for layer in range(4)]
    assert [m.mean for m in measured] == pytest.approx([0.25, 0.975, 1.0, 0.5], abs=0.05)
    assert [m.mean for m in measured] == pytest.approx([sweep.contribution(k) for k in range(4)])
    assert sweep.contributions == dict(enumerate(measured))
    assert {reading.best, *reading.equals} <= {1, 2} and reading.refusal is None
    assert reading.noise_ceiling > 0.75
    tied = read_sweep(sweep_of([0.3, 0.3, 0.3, 0.1], noise=0.3))
    assert {tied.best, *tied.equals} == {0, 1, 2}


def test_contributions_are_refused_when_rl_gained_nothing():
    reading = read_sweep(sweep_of([0.01, 0.02], full=0.0, prompts=20))
    assert "not more than two standard errors above zero" in reading.refusal
    assert read_sweep(sweep_of([0.01, 0.02], full=0.4)).refusal is None


def by_hand(single, base, whole):
    """C and its error from scores (seeds, prompts), in so many words."""
    seeds, prompts = whole.shape
    value = (single.mean() - base.mean()) / (whole.mean() - base.mean())
    rest = single - base - value * (whole - base)
    variance = np.var(rest.mean(axis=0), ddof=1) / prompts
    variance += np.var(rest.mean(axis=1), ddof=1) / seeds if seeds > 1 else 0.0
    return value, np.sqrt(variance) / abs(whole.mean() - base.mean())


def test_shares_of_the_best_layers_gain_need_no_full_run():
    records = sweep_of([0.1, 0.39, 0.6, 0.2])
    collapsed = [
        made("full", r.run.seed, scores=(0.0,) * len(r.prompt_scores))
        if r.run.kind == "full"
        else r
        for r in records
    ]
    for runs in (records, collapsed):
        reading = read_sweep(runs)
        scores = {layer: found.scores for layer, found in reading.layers.items()}
        base, best = reading.base.scores, scores[2]
        assert reading.ranked == (2, 1, 3, 0) and reading.nothing_gained is None
        for layer, single in scores.items():
            share = reading.share_of_best(layer)
            expected = by_hand(single, base, best)
            assert (share.mean, share.error) == pytest.approx(expected, abs=1e-12)
            gap = reading.below_best(layer)
            assert gap.mean == pytest.approx(best.mean() - single.mean(), abs=1e-12)
            assert gap.error == pytest.approx(difference(best - single).error, abs=1e-12)
    assert "below the base model" in reading.refusal and not reading.sweep.contributions
    nothing = read_sweep(sweep_of([0.0, 0.0, -0.01], noise=0.2))
    assert "nothing to rank" in nothing.nothing_gained


def with_full_gains(gains, error=0.02):
    """A sweep whose full runs gain these, one for each seed, each with this standard error."""
    prompts = 50
    generator = np.random.default_rng(0)
    records = sweep_of([0.1, 0.3, 0.2], seeds=len(gains), prompts=prompts, noise=0.0)
    base = np.array(records[0].prompt_scores)
    for seed, gain in enumerate(gains):
        noise = generator.standard_normal(prompts)
        noise = (noise - noise.mean()) / noise.std(ddof=1) * error * np.sqrt(prompts)
        (index,) = (i for i, r in enumerate(records) if (r.run.kind, r.run.seed) == ("full", seed))
        records[index] = made("full", seed, scores=tuple(base + gain + noise))
    return read_sweep(records)


def test_full_runs_that_contradict_each_other_refuse_contributions():
    """As on Gemma 3 at 3e-5: 1.00 with one seed, 0.14 with the other, from 0.51."""
    collapsed = with_full_gains([0.49, -0.37])
    assert "contradict each other, gaining +0.490 ± 0.020, -0.370 ± 0.020" in collapsed.refusal
    # The mean of these is clearly above zero, but one of them is not.
    assert "contradict" in with_full_gains([0.5, 0.5, 0.5, 0.5, -0.1]).refusal
    assert with_full_gains([0.5, 0.5, 0.5, 0.5, -0.1]).gain.mean > 3 * 0.1
    # Apart, but not by more than their mean; or by more, but within their errors.
    assert with_full_gains([0.5, 0.4, 0.3]).refusal is None
    assert with_full_gains([0.02, 0.1, 0.1, 0.1, 0.1], error=0.05).refusal is None
    assert "below the base model" in with_full_gains([-0.2, -0.3]).refusal
    assert "not more than two standard errors" in with_full_gains([0.01, 0.0]).refusal


def test_a_run_outside_a_sweep_is_itself_in_every_seed():
    generator = np.random.default_rng(0)
    base, full = generator.random((2, 3, 40)) * 0.2 + np.array([0.0, 0.5]).reshape(2, 1, 1)
    single = generator.random(40)
    measured = [Measured(s, (0, 1, 2), (), s.mean(axis=1)) for s in (base, full)]
    found = share(Measured.once(single), *measured)
    expected = by_hand(np.tile(single, (3, 1)), base, full)
    assert (found.mean, found.error) == pytest.approx(expected, rel=1e-9)


def test_a_share_of_a_bare_score_against_simulation():
    """Single and base are paired by prompt; the whole is drawn anew within its error."""
    generator = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(4000):
        shared = generator.uniform(0.2, 0.4, 60)
        single, base = (
            Measured.once(shared + gain + 0.1 * generator.standard_normal(60)) for gain in (0.3, 0)
        )
        whole = Score(0.7 + 0.015 * generator.standard_normal(), 0.015)
        share = share_of_score(single, base, whole)
        values.append(share.mean)
        errors.append(share.error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.05)
    assert share_of_score(single, base, Score(0.7)).error is None


def test_one_seed_has_no_noise_ceiling_and_failures_are_told():
    records = [*sweep_of([0.1, 0.2, 0.3], seeds=1), made("layer", layer=3, status="failed")]
    reading = read_sweep(records)
    assert reading.noise_ceiling is None
    assert reading.failed == {3: "its weights are not finite"}
    assert list(reading.layers) == [0, 1, 2]
    with pytest.raises(LayerpickError, match="no finished full run"):
        read_sweep([record for record in records if record.run.kind != "full"])


def test_the_error_of_a_contribution_is_the_scatter_of_repeated_sweeps():
    generator = np.random.default_rng(3)
    values, errors = [], []
    for _ in range(300):
        shared = generator.uniform(0.2, 0.4, 60)
        runs = [
            made(kind, 0, layer, tuple(shared + gain + 0.2 * generator.standard_normal(60)))
            for kind, layer, gain in (("base", None, 0), ("full", None, 0.4), ("layer", 0, 0.2))
        ]
        contribution = read_sweep(runs).contribution(0)
        values.append(contribution.mean)
        errors.append(contribution.error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


@given(
    st.integers(1, 4),
    st.integers(2, 30),
    st.floats(0, 0.5),
    st.integers(0, 1000),
)
def test_errors_join_prompts_and_seeds(seeds, prompts, spread, seed):
    generator = np.random.default_rng(seed)
    scores = generator.random((seeds, prompts)) + spread * generator.random((seeds, 1))
    score = difference(scores)
    by_prompt = np.std(scores.mean(axis=0), ddof=1) ** 2 / prompts
    by_seed = np.std(scores.mean(axis=1), ddof=1) ** 2 / seeds if seeds > 1 else 0.0
    assert score.mean == pytest.approx(scores.mean())
    assert score.error == pytest.approx(np.sqrt(by_prompt + by_seed))
