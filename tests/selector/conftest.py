import pytest
import typer
from typer.testing import CliRunner

from layerpick.selector.settings import RolloutChoice, SamplingChoice
from layerpick.training.tasks.base import TaskSettings

REWARD = "def even(completions, **_):\n    return [1.0 - len(c) % 2 for c in completions]\n"


@pytest.fixture
def settings(tmp_path) -> TaskSettings:
    """A task in which even a random model's completions differ in reward."""
    (tmp_path / "mine.py").write_text(REWARD)
    return TaskSettings(
        dataset="reasoning-gym:chain_sum?max_digits=2",
        template="{expression}=",
        reward=f"{tmp_path / 'mine.py'}:even",
    )


@pytest.fixture
def few() -> RolloutChoice:
    """Rollouts that take a second."""
    return RolloutChoice(prompts=4, group_size=4)


@pytest.fixture
def short() -> SamplingChoice:
    """Completions that take a second."""
    return SamplingChoice(max_new_tokens=5)


@pytest.fixture
def arguments(tiny, settings, tmp_path) -> list[str]:
    """A fast `layerpick suggest` on a tiny model, as typed."""
    return [
        "suggest",
        str(tiny("qwen3").folder),
        *("--dataset", settings.dataset, "--template", settings.template),
        *("--reward", settings.reward, "--prompts", "4", "--group-size", "4"),
        *("--max-new-tokens", "5", "--probes", "gradient", "--out", str(tmp_path / "out")),
    ]


@pytest.fixture
def runs():
    """`runs(command)`: a function that runs it, and returns what it wrote to stdout."""

    def of(command):
        app = typer.Typer()
        app.command()(command)

        def run(*arguments):
            result = CliRunner().invoke(app, [str(argument) for argument in arguments])
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert result.exit_code == 0, result.output
            return result.stdout

        return run

    return of
