"""Where the `layerpick` command begins: from here on, Ctrl-C ends it quietly."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line; exits with 130 on Ctrl-C, as shells expect."""
    try:
        from layerpick.selector.app.app import run

        code = run()
    except KeyboardInterrupt:
        print("Interrupted; nothing half-written is left behind.", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)
