"""Errors that a person can act on.

The command line prints the message of a `LayerpickError` as one sentence and exits with its
`exit_code`; every other exception is a bug and keeps its traceback.
"""


class LayerpickError(Exception):
    """A user's mistake or a missing resource: names the thing, the place, and what to do."""

    exit_code = 2


class NoSignalError(LayerpickError):
    """No group of rollouts has reward variance, so there is nothing to learn from."""

    exit_code = 3


class MissingExtraError(LayerpickError):
    """An optional dependency is needed and not installed."""

    def __init__(self, needed_for: str, extra: str):
        super().__init__(
            f"{needed_for} needs the optional dependency '{extra}', which is not installed: "
            f"pip install 'layerpick[{extra}]'."
        )
