"""Where the `layerpick` command begins: from here on, Ctrl-C ends it quietly."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED, MISTAKE = 130, 1
OURS = (
    "This is a mistake in layerpick, not in what you gave it: please report it, with the lines "
    "above."
)
AGAIN = 0.05
"""Seconds until a Ctrl-C that was lost is tried again."""


def main() -> None:
    """Run the command line; exits with 130 on Ctrl-C, as shells expect."""
    keep_interrupts()
    try:
        from layerpick.selector.app.app import run

        code = run()
    except KeyboardInterrupt:
        print("Interrupted; nothing half-written is left behind.", file=sys.stderr)
        code = INTERRUPTED
    except Exception:
        import traceback

        traceback.print_exc()
        print(OURS, file=sys.stderr)
        code = MISTAKE
    sys.exit(code)


def keep_interrupts() -> None:
    """See to it that no Ctrl-C is lost.

    One that falls into a weak reference's callback or a destructor, of which training has many,
    Python reports as ignored and forgets: it comes again a moment later, from outside of them.
    """
    report = sys.unraisablehook

    def again(unraisable: UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)
            return
        main_thread = threading.main_thread().ident
        timer = threading.Timer(AGAIN, signal.pthread_kill, (main_thread, signal.SIGINT))
        timer.daemon = True  # whoever is done by then needs no Ctrl-C
        timer.start()

    sys.unraisablehook = again
