"""Measured runs as files: one JSON record per run, in a folder for each sweep.

It is `<root>/<model>/<task>-<algorithm>/`, or has a name of its own in place of the last part.

The folder is the truth. A pass of several runs is first written whole to a journal, then taken
apart into records, and whoever opens the folder next finishes what a kill left in a journal. Runs
being measured are claimed by file locks, which the operating system drops when their holder dies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from layerpick.calibration.sweeps.features import FEATURES_FILE
from layerpick.training.errors import LayerpickError
from layerpick.training.files import as_json, write_text
from layerpick.training.reading import read_record as read_record_of
from layerpick.training.reading import reading
from layerpick.training.sweeps.records import SCHEMA_VERSION, RunKey, RunRecord, RunSettings

PICTURE = "profile.png"
REPORT = "report.html"
NO_RECORDS = (PICTURE, REPORT, FEATURES_FILE)
"""The other files that may lie in the folder."""
_WHAT, _REMEDY = f"the record of a run, version {SCHEMA_VERSION}", "move it out of the folder"
_CLAIMS = ".claims"
_JOURNAL = ".journal-"
_RECORDS = TypeAdapter(list[RunRecord])

"""Sweeps of the built-in models, measured with `layerpick sweep`."""


def sweep_folder(
    root: Path, model: str, task: str, algorithm: str, name: str | None = None
) -> Path:
    """Where the runs of one sweep are kept; its name tells several data sets of a model apart.

    Raises LayerpickError for a name that is no folder's.
    """
    if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
        raise LayerpickError(
            f"--name '{name}' is no name of a folder: use letters, digits, '.', '-' and '_'."
        )
    return root / model.replace("/", "--") / (name or f"{task}-{algorithm}")


class FolderStore:
    """The runs of one sweep, in one folder."""

    def __init__(self, folder: Path):
        """Finish what a killed sweep left in a journal. Raises LayerpickError if it cannot."""
        self.folder = folder
        for journal in sorted(folder.glob(f"{_JOURNAL}*.json")):
            self._take_apart(journal)

    def read(self, key: RunKey, settings: RunSettings) -> RunRecord | None:
        """The record of a run, or None if there is none.

        Raises LayerpickError for a file that is no record, or was made with other settings.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        record = read_record(path)
        if record.run != key:
            raise LayerpickError(f"{path} holds the run {record.run.name}: give it that name back.")
        for name, (value, found) in settings.differences(record.settings).items():
            raise LayerpickError(
                f"{path} was measured with {name} = {found!r}, not {value!r}: use the same "
                f"settings, or another folder."
            )
        return record

    @contextmanager
    def claim(self, keys: Sequence[RunKey]) -> Iterator[list[RunKey]]:
        """Those of the runs that no other process is measuring; ours until the block ends.

        Raises LayerpickError when the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        claims = self.folder / _CLAIMS
        claimed = []
        with ExitStack() as held:
            try:
                claims.mkdir(parents=True, exist_ok=True)
                for key in keys:
                    try:
                        held.enter_context(FileLock(claims / f"{key.name}.lock", timeout=0))
                    except Timeout:
                        continue
                    claimed.append(key)
            except OSError as error:
                reason = error.strerror or error
                raise LayerpickError(f"Cannot write {self.folder}: {reason}.") from error
            yield claimed

    def write(self, records: Sequence[RunRecord]) -> None:
        """Keep the records of one pass, all or none. Raises LayerpickError if it cannot."""
        journal = self.folder / f"{_JOURNAL}{records[0].run.name}.json"
        write_text(journal, _RECORDS.dump_json(list(records)).decode())
        self._take_apart(journal)

    def _take_apart(self, journal: Path) -> None:
        with reading(journal, "the records of a pass", "delete it, and the pass is run again"):
            try:
                records = _RECORDS.validate_json(journal.read_bytes())
            except FileNotFoundError:
                return  # another process was faster
        for record in records:
            if not self._path(record.run).exists():
                write_text(self._path(record.run), as_json(record))
        journal.unlink(missing_ok=True)

    def _path(self, key: RunKey) -> Path:
        return self.folder / f"{key.name}.json"


def read_record(path: Path) -> RunRecord:
    """Read one record. Raises LayerpickError for a file that is none."""
    return read_record_of(path, RunRecord, _WHAT, _REMEDY)


def read_folder(folder: Path) -> list[RunRecord]:
    """All records of a folder, in order of name; hidden files and `NO_RECORDS` are passed over.

    Raises LayerpickError when there is none, when a file is no record, or when the records do not
    belong to one sweep.
    """
    if not folder.is_dir():
        raise LayerpickError(f"There is no folder {folder}.")
    FolderStore(folder)  # finishes journals
    records = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in NO_RECORDS:
            continue
        if path.suffix != ".json" or not path.is_file():
            raise LayerpickError(f"{path} is no record of a run: move it out of the folder.")
        records.append(read_record(path))
        if path.stem != records[-1].run.name:
            raise LayerpickError(
                f"{path} holds the run {records[-1].run.name}: give it that name back."
            )
        if records[-1].settings.differences(records[0].settings):
            raise LayerpickError(
                f"{path} was measured with other settings than {records[0].run.name}: keep the "
                f"runs of different sweeps in different folders."
            )
    if not records:
        raise LayerpickError(f"{folder} holds no records of runs.")
    return records


def read_settings(folder: Path) -> RunSettings:
    """The settings of a sweep, from its first record alone.

    Raises LayerpickError for a folder without records.
    """
    FolderStore(folder)  # finishes journals
    for path in sorted(folder.glob("*.json")):
        if not path.name.startswith(".") and path.name not in NO_RECORDS:
            return read_record(path).settings
    raise LayerpickError(f"{folder} holds no records of runs.")


def sweep_folders(root: Path) -> list[Path]:
    """The folder itself if it holds records, else those below it that do."""
    if not root.is_dir():
        raise LayerpickError(f"There is no folder {root}.")
    if any(path.suffix == ".json" for path in root.iterdir()):
        return [root]
    below = sorted({path.parent for path in root.glob("*/*/*.json")})
    below += sorted({path.parent for path in root.glob("*/*.json")})
    if not below:
        raise LayerpickError(f"{root} holds no records of runs.")
    return below
