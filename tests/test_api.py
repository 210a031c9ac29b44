"""One public door: lazy, typed, and with a function for every command."""

import subprocess
import sys
from pathlib import Path

import pytest

import layerpick
from layerpick.selector.app.app import app

SOURCE = Path(layerpick.__file__).parents[1]
LISTS = {"tasks", "probes"}
"""Commands that print tables of what there is."""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_takes_nothing_with_it():
    code = (
        "import sys, layerpick; dir(layerpick); layerpick.__version__\n"
        "layerpick.RlSettings(); layerpick.TaskSettings(); layerpick.LayerpickError\n"
        "print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    )
    assert python(code).strip() == "set()"


def test_every_name_is_there():
    for name in layerpick.__all__:
        assert getattr(layerpick, name) is not None
    assert set(layerpick.__all__) <= set(dir(layerpick))
    with pytest.raises(AttributeError, match="no attribute 'sugest'"):
        layerpick.sugest  # noqa: B018


def test_every_command_is_a_function():
    commands = {command.name for command in app.registered_commands} - LISTS
    assert commands <= set(layerpick.__all__)
    assert all(callable(getattr(layerpick, name)) for name in commands)


@pytest.mark.slow
def test_type_checkers_know_an_editable_install(check_types):
    check_types(SOURCE, sys.executable)
