"""Where the `layerpick` command begins: from here on, Ctrl-C ends it quietly."""

from __future__ import annotations

import sys

from layerpick.selector.app.interrupts import keep_interrupts

INTERRUPTED, MISTAKE = 130, 1
OURS = (
    "This is a mistake in layerpick, not in what you gave it: please report it, with the lines "
    "above."
)


def main() -> None:
    """Run the command line; exits with 130 on Ctrl-C, as shells expect."""
    try:
        keep_interrupts()
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
