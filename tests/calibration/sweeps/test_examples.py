import json

import numpy as np
import pytest

from layerpick.calibration.predictors.levels import LEVELS, find_level
from layerpick.calibration.sweeps.examples import load_examples
from layerpick.probes.table import PROBES
from layerpick.training.errors import LayerpickError


def test_examples_come_back_from_folders(made_examples, write_sweep, tmp_path):
    written = made_examples(2)
    for example in written:
        write_sweep(example, tmp_path)
    loaded = load_examples([tmp_path])
    assert loaded.left_out == ()
    for example, read in zip(written, loaded.examples, strict=True):
        assert read.contributions == pytest.approx(example.contributions, abs=1e-9)
        assert read.shares == pytest.approx(example.shares, abs=1e-9)
        assert read.rates == "shared" and read.share_errors[read.shares.argmax()] == 0
        assert (read.family, read.task, read.layers) == (
            example.family,
            example.task,
            example.layers,
        )
        assert int(example.contributions.argmax()) in read.best
        assert (read.errors > 0).all() and (read.errors < 0.1).all()
        assert read.noise_ceiling == pytest.approx(1, abs=0.05)
        assert read.seconds == pytest.approx(example.seconds)
        for name, values in example.by_name.items():
            assert read.by_name[name] == pytest.approx(values)


def test_costs_are_those_of_two_seeds(made_examples, write_sweep, tmp_path):
    (example,) = made_examples(1)
    folder = write_sweep(example, tmp_path)
    for file in folder.glob("*-seed1.json"):
        third = json.loads(file.read_text())
        third["run"]["seed"] = 2
        file.with_name(file.name.replace("seed1", "seed2")).write_text(json.dumps(third))
    (read,) = load_examples([tmp_path]).examples
    assert read.seconds == pytest.approx(example.seconds)
    assert read.tokens == pytest.approx(example.tokens, rel=0.01)


def test_what_teaches_nothing_is_named(made_examples, write_sweep, tmp_path):
    good, bare, other, useless, short, twice = made_examples(6)
    write_sweep(good, tmp_path / "a")
    (write_sweep(bare, tmp_path / "a") / "features.json").unlink()
    path = write_sweep(other, tmp_path / "a") / "features.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights_hash": "another"}))
    folder = write_sweep(useless, tmp_path / "a")
    for file in folder.glob("full-*.json"):
        base = json.loads((folder / "base-seed0.json").read_text())
        same = {name: base[name] for name in ("score", "prompt_scores")}
        file.write_text(json.dumps({**json.loads(file.read_text()), **same}))
    for file in write_sweep(short, tmp_path / "a").glob("layer*.json"):
        if not file.name.startswith(("layer000", "layer001")):
            file.unlink()
    write_sweep(good, tmp_path / "b")
    for file in write_sweep(twice, tmp_path / "b").glob("full-*.json"):
        file.unlink()
    loaded = load_examples([tmp_path / "a", tmp_path / "b"])
    assert [example.model for example in loaded.examples] == [good.model]
    said = {
        bare.model: "has no features",
        other.model: "another model",
        useless.model: "full-parameter run gained",
        short.model: "fewer than 3",
        good.model: "over again",
        twice.model: "no finished full run",
    }
    assert len(loaded.left_out) == len(said)
    for model, words in said.items():
        assert any(model in each and words in each for each in loaded.left_out), words


def test_sweeps_whose_full_run_collapsed_can_still_be_ranked(made_examples, write_sweep, tmp_path):
    good, collapsed = made_examples(2)
    write_sweep(good, tmp_path)
    for file in write_sweep(collapsed, tmp_path).glob("full-*.json"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "score": 0.0, "prompt_scores": [0.0] * 64}))
    loaded = load_examples([tmp_path])
    assert [example.model for example in loaded.examples] == [good.model]
    assert any("below the base model" in sentence for sentence in loaded.left_out)
    (ranked,) = loaded.ranked_only
    assert ranked.measured.size == 0 and ranked.model == collapsed.model
    for written, read in zip((good, collapsed), loaded.by_shares, strict=True):
        assert read.contributions == pytest.approx(written.shares, abs=1e-9)
        assert read.measured.tolist() == list(range(written.layers))
        assert int(written.contributions.argmax()) in read.best


def test_a_collapsed_sweep_at_a_shared_rate_makes_room_for_one_at_own_rates(
    made_examples, write_sweep, tmp_path
):
    (example,) = made_examples(1)
    for file in write_sweep(example, tmp_path / "shared").glob("full-*.json"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "score": 0.0, "prompt_scores": [0.0] * 64}))
    assert len(load_examples([tmp_path / "shared"]).ranked_only) == 1
    for file in write_sweep(example, tmp_path / "own").glob("*-seed*.json"):
        record = json.loads(file.read_text())
        record["settings"]["rates"] = "own"
        file.write_text(json.dumps(record))
    loaded = load_examples([tmp_path / "shared", tmp_path / "own"])
    assert [each.rates for each in loaded.rankable] == ["own"]
    assert any("measured again at a rate for each policy" in each for each in loaded.left_out)


def test_layers_not_measured_are_not_numbers(made_examples, write_sweep, tmp_path):
    (example,) = made_examples(1)
    for file in write_sweep(example, tmp_path).glob("layer001*.json"):
        file.unlink()
    (read,) = load_examples([tmp_path]).examples
    assert np.isnan(read.contributions[1])
    assert read.measured.tolist() == [k for k in range(example.layers) if k != 1]


def test_levels_grow_and_hold_only_probes_that_exist():
    before: set[str] = set()
    for level in LEVELS.values():
        assert before < set(level.probes)
        before = set(level.probes)
    assert set(PROBES) - set(LEVELS["on_policy"].probes) == {"bypass", "curvature", "attribution"}


def test_levels_are_found_by_name():
    assert find_level("one_step") is LEVELS["one_step"]
    with pytest.raises(LayerpickError, match="tarot"):
        find_level("tarot")
