"""Records of runs in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from layerpick.calibration.sweeps.store import (
    FolderStore,
    read_folder,
    read_record,
    sweep_folder,
    sweep_folders,
)
from layerpick.training.errors import LayerpickError
from layerpick.training.files import as_json
from layerpick.training.sweeps.records import RunKey, RunRecord


def test_records_survive_the_folder(tmp_path, made, settings):
    store = FolderStore(tmp_path / "sweep")
    records = [made("base"), made("layer", layer=2, status="failed"), made("layer", layer=3)]
    store.write(records)
    for record in records:
        assert store.read(record.run, settings) == record
    assert store.read(RunKey(kind="full", seed=0, learning_rate=1.0), settings) is None
    assert sorted(read_folder(store.folder), key=lambda r: r.run.name) == records
    names = {path.name for path in store.folder.iterdir()}
    assert names == {
        "base-seed0.json",
        "layer003-lr0.001-seed0.json",
        "layer002-lr0.001-seed0.json",
    }


def test_numbers_take_one_line_and_words_stay_as_they_are(made):
    record = made("full").model_copy(update={"reason": "no [ 1, 2 ]\n[\n 3 ]"})
    text = as_json(record)
    assert '"curve": [0.1,0.2],' in text
    assert RunRecord.model_validate_json(text) == record


def test_other_settings_are_named_not_mixed(tmp_path, made, settings):
    store = FolderStore(tmp_path)
    store.write([made("base")])
    with pytest.raises(
        LayerpickError, match=r"base-seed0\.json was measured with steps = 2, not 5"
    ):
        store.read(made("base").run, settings.model_copy(update={"steps": 5}))
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
def test_unreadable_files_are_errors_with_their_path(tmp_path, content, message, made, settings):
    FolderStore(tmp_path).write([made("base")])
    path = tmp_path / "full-lr0.001-seed0.json"
    path.write_text(content)
    for read in (
        lambda: read_folder(tmp_path),
        lambda: FolderStore(tmp_path).read(made("full").run, settings),
    ):
        with pytest.raises(LayerpickError, match=message) as raised:
            read()
        assert str(path) in str(raised.value)


def test_foreign_files_renamed_records_and_later_versions_are_errors(tmp_path, made, settings):
    store = FolderStore(tmp_path)
    store.write([made("base")])
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(LayerpickError, match=r"notes\.txt is no record"):
        read_folder(tmp_path)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "base-seed0.json").rename(tmp_path / "base-seed1.json")
    with pytest.raises(LayerpickError, match="holds the run base-seed0"):
        store.read(RunKey(kind="base", seed=1), settings)
    later = json.loads((tmp_path / "base-seed1.json").read_text()) | {"schema_version": 2}
    (tmp_path / "base-seed1.json").write_text(json.dumps(later))
    with pytest.raises(LayerpickError, match="version 1"):
        read_record(tmp_path / "base-seed1.json")


def test_a_journal_left_by_a_kill_is_finished(tmp_path, monkeypatch, made, settings):
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
    assert [again.read(record.run, settings) for record in records] == records
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


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_nothing(tmp_path, made):
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


def test_folders_are_found_below_a_root(tmp_path, made):
    folder = sweep_folder(tmp_path, "owner/name", "math", "grpo")
    assert folder == tmp_path / "owner--name" / "math-grpo"
    FolderStore(folder).write([made("base")])
    assert sweep_folders(tmp_path) == sweep_folders(folder) == [folder]
    (tmp_path / "empty").mkdir()
    for wrong, message in (("empty", "holds no records"), ("absent", "There is no folder")):
        with pytest.raises(LayerpickError, match=message):
            sweep_folders(tmp_path / wrong)
