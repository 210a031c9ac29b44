"""Python files of the user's own, named on the command line: rewards and worlds.

They run with the user's rights, which is what naming them asks for.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from layerpick.training.errors import LayerpickError


def import_file(path: Path, kind: str) -> ModuleType:
    """Run a Python file as a module; `kind` is what it is called in messages.

    Raises LayerpickError if the file is missing or does not run.
    """
    if not path.is_file():
        raise LayerpickError(f"The {kind} file {path} does not exist.")
    spec = importlib.util.spec_from_file_location(f"layerpick_{kind}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise LayerpickError(
            f"The {kind} file {path} failed to run: {type(error).__name__}: {error}."
        ) from error
    return module
