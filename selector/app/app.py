"""The command line. PyTorch and transformers are imported by commands, not by `--help`."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

import typer

from layerpick.selector.app import probes as probes_command
from layerpick.selector.app import tasks as tasks_command
from layerpick.selector.app import zoo as zoo_command
from layerpick.selector.app.entry import INTERRUPTED
from layerpick.selector.auto import command as auto_command
from layerpick.selector.comparison import command as compare_command
from layerpick.selector.evaluation import command as evaluate_command
from layerpick.selector.export import command as export_command
from layerpick.selector.race import command as race_command
from layerpick.selector.recalibration import command as calibrate_command
from layerpick.selector.rollouts import command as rollouts_command
from layerpick.selector.suggestion import command as suggest_command
from layerpick.selector.sweep import command as sweep_command
from layerpick.selector.training_run import command as train_command
from layerpick.selector.verification import command as verify_command
from layerpick.selector.voting import command as vote_command
from layerpick.training.errors import LayerpickError
from layerpick.training.processes import another_failed, first_to_fail

app = typer.Typer(
    name="layerpick",
    help="Which single decoder layer of a language model should RL train?\n\n"
    "Start with: layerpick suggest (built-in model, under a minute), then "
    "layerpick suggest Qwen/Qwen3-4B --task math.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("suggest")(suggest_command.suggest)
app.command("rollouts")(rollouts_command.rollouts)
app.command("train")(train_command.train)
app.command("apply")(train_command.apply)
app.command("export")(export_command.export)
app.command("vote")(vote_command.vote)
app.command("auto")(auto_command.auto)
app.command("race")(race_command.race)
app.command("sweep")(sweep_command.sweep)
app.command("compare")(compare_command.compare)
app.command("verify")(verify_command.verify)
app.command("evaluate")(evaluate_command.evaluate)
app.command("calibrate")(calibrate_command.calibrate)
app.command("tasks")(tasks_command.tasks)
app.command("probes")(probes_command.probes)
app.add_typer(zoo_command.app, name="zoo")


_BY_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENAMETOOLONG),
}
"""Errors that tell of a full disk and the like, not of a mistake in a program."""
_NO_MEMORY = "There is not enough memory: give fewer --prompts or a smaller --batch-size"


def _refuse_broken_text(arguments: list[str]) -> None:
    """Raise LayerpickError for what is no UTF-8: neither a record nor a tokenizer can hold it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            shown = ascii(argument[:60])
            raise LayerpickError(
                f"The argument {shown} is not UTF-8 text: give it in UTF-8."
            ) from error


def run(arguments: list[str] | None = None) -> int:
    """Run one command; a user's mistake is one sentence on stderr and its exit code.

    So is what the machine refuses: a full disk, no memory, a place that may not be written. Any
    other exception is a mistake of ours and goes on.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may know fewer signs than we use
            stream.reconfigure(errors="replace")
    try:
        _refuse_broken_text(sys.argv[1:] if arguments is None else arguments)
        result = app(arguments, standalone_mode=False)
        if result == INTERRUPTED:  # typer's word for Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()
    except LayerpickError as error:
        return _failed(str(error), error.exit_code)
    except BrokenPipeError:  # `layerpick … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _failed(_NO_MEMORY)
    except OSError as error:
        if error.errno not in _BY_THE_MACHINE:
            raise
        place = error.filename or "a file or standard output"
        return _failed(f"{place} cannot be read or written: {error.strerror}")
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be imported here
            return _failed(_NO_MEMORY)
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's usage errors
            error.show()
            return int(error.exit_code)
        if another_failed():
            return LayerpickError.exit_code
        raise
    return result if isinstance(result, int) else 0


def _failed(sentence: str, code: int = LayerpickError.exit_code) -> int:
    with suppress(OSError):  # where even that cannot be said, the code says it
        if first_to_fail():
            print(f"Error: {sentence.rstrip('.')}.", file=sys.stderr)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    return code
