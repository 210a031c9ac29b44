"""Groups of options: frozen dataclasses as typer sees them, and the same flags everywhere."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

import pytest
import typer
from typer import Option
from typer.main import get_command
from typer.testing import CliRunner

from layerpick.selector.app.app import app
from layerpick.selector.options import attribute_docs, with_groups
from layerpick.selector.settings import ModelChoice, SamplingChoice
from layerpick.training.settings import RlSettings
from layerpick.training.tasks.settings import TaskSettings

COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
TRAINING = ("train", "auto", "sweep")


def options(command: str):
    return {each.name: each for each in COMMANDS[command].params}


@dataclass(frozen=True)
class Base:
    """Inherited."""

    quiet: bool = False
    """Say less."""


@dataclass(frozen=True)
class Group(Base):
    """A group."""

    panel: ClassVar[str] = "Mine"

    size: Annotated[int, Option("--size", "--big", min=1)] = 3
    """How large, in [m]
    or so.

    Only in the documentation.
    """
    names: tuple[str, ...] = ()
    """Given several times."""
    pair: Annotated[
        tuple[int, ...] | None,
        Option(parser=lambda text: tuple(map(int, text.split(","))), metavar="PAIR"),
    ] = None
    """Two numbers."""


def call(*arguments: str, default: Group | None = None):
    found = []
    app = typer.Typer(rich_markup_mode="rich")

    if default is None:

        @app.command()
        @with_groups
        def plain(group: Group, other: str = "x") -> None:
            found.append((group, other))
    else:

        @app.command()
        @with_groups
        def own(group: Group = default, other: str = "x") -> None:
            found.append((group, other))

    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return result, found


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """Annotations of functions defined in functions are looked up here."""
    monkeypatch.setitem(globals(), "Group", Group)


def test_a_group_becomes_options_and_comes_back_frozen():
    assert call()[1] == [(Group(), "x")]
    given = ["--big", "5", "--names", "a", "--names", "b", "--pair", "1,2", "--quiet"]
    assert call(*given)[1] == [(Group(True, 5, ("a", "b"), (1, 2)), "x")]
    assert call("--size", "0")[0].exit_code == 2
    assert call("--no-quiet")[0].exit_code == 2


def test_the_commands_own_default_replaces_the_groups():
    assert call(default=Group(size=9, names=("z",)))[1] == [(Group(size=9, names=("z",)), "x")]
    _, found = call("--names", "y", default=Group(size=9, names=("z",)))
    assert found == [(Group(size=9, names=("y",)), "x")]
    assert "[default: 9]" in call("--help", default=Group(size=9))[0].output


def test_help_is_the_first_paragraph_below_the_field():
    shown = call("--help")[0].output
    assert "How large, in [m] or so." in shown and "Only in the documentation" not in shown
    assert "Mine" in shown and "Say less." in shown


def test_no_option_twice():
    with pytest.raises(TypeError, match="'size' twice"):

        @with_groups
        def twice(group: Group, size: int = 1) -> None:
            """Never runs."""


@pytest.mark.parametrize("group", [RlSettings, TaskSettings, ModelChoice, SamplingChoice])
def test_every_choice_says_what_it_is(group):
    assert set(attribute_docs(group)) >= {field.name for field in fields(group)}


def test_one_flag_means_one_thing_on_every_command():
    spelled: dict[str, tuple[str, list[str]]] = {}
    for name, command in COMMANDS.items():
        for each in command.params:
            for flag in each.opts if each.param_type_name == "option" else ():
                first, flags = spelled.setdefault(flag, (name, each.opts))
                assert flags == each.opts, (flag, first, name)


@pytest.mark.parametrize("command", TRAINING)
def test_settings_of_rl_have_both_spellings_wherever_something_is_trained(command):
    found = options(command)
    assert {field.name for field in fields(RlSettings)} <= set(found)
    assert set(found["beta"].opts) == {"--beta", "--kl"}
    assert set(found["epsilon"].opts) == {"--epsilon", "--clip"}
    for field in fields(RlSettings):
        assert found[field.name].default == field.default


@pytest.mark.parametrize("command", ["suggest", *TRAINING])
def test_options_of_tasks_and_models_are_on_every_command_that_needs_them(command):
    known = [field for group in (TaskSettings, ModelChoice) for field in fields(group)]
    wanted = {field.name for field in known if field.metadata.get("option", True)}
    assert wanted <= set(options(command))
