"""From a suggestion or a run, and a measurement, to a verification."""

from __future__ import annotations

from pathlib import Path

from layerpick.selector.suggestion.result import read_suggestion
from layerpick.selector.training_run.advice import SUGGESTION_FILE
from layerpick.selector.verification.find import find_reading, full_score
from layerpick.selector.verification.result import Verification
from layerpick.selector.verification.run import verify_pair, verify_run, verify_suggestion
from layerpick.training.errors import LayerpickError
from layerpick.training.runs.folder import RunFolder


def verify(
    what: Path | str, *, sweep: Path | str | None = None, full: str | None = None
) -> Verification:
    """Set prediction beside measurement: was the pick right, and by how much?

    `what` is a suggestion.json or the folder of a run. `sweep` is the folder of a measured sweep,
    or of several of which one fits; without it, `full` may be the folder of a full-parameter run,
    or its score as `0.83` or `0.83,0.02`. Raises LayerpickError for whatever the user can mend.
    """
    what = Path(what)
    if sweep is not None and full is not None:
        raise LayerpickError("Give --sweep or --full, not both: a sweep has its own full run.")
    if what.is_file():
        suggestion = read_suggestion(what)
        if sweep is None:
            raise LayerpickError("A suggestion is verified by a sweep: give its folder, --sweep.")
        reading = find_reading(Path(sweep), *suggestion.about)
        if reading is None:
            raise LayerpickError(f"{sweep} holds no sweep of {suggestion.model.id}, as suggested.")
        return verify_suggestion(suggestion, reading)
    run = RunFolder(what)
    # `layerpick auto` keeps it one folder up.
    kept = [place / SUGGESTION_FILE for place in (what, what.parent)]
    advice = next((read_suggestion(path) for path in kept if path.is_file()), None)
    if sweep is None:
        return verify_pair(run, advice, full_score(full) if full else None)
    settings = run.description().settings
    reading = find_reading(Path(sweep), *settings.about)
    if reading is None:
        raise LayerpickError(f"{sweep} holds no sweep of {settings.model}, as trained.")
    return verify_run(run, advice, reading)
