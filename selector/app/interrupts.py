"""No Ctrl-C is lost.

Python raises KeyboardInterrupt wherever the program happens to be. In a weak reference's callback
or a destructor, of which training has many, it is only reported and forgotten; while an extension
module sets itself up, C code may clear it or make an ImportError of it. There it comes again a
moment later, from outside of them.

Limit: whatever else takes a KeyboardInterrupt for itself keeps it.
"""

from __future__ import annotations

import signal
import sys
import threading
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN = 0.05
"""Seconds until a Ctrl-C comes again."""


def keep_interrupts() -> None:
    """See to it, in a process in which Ctrl-C does what it does in any Python program."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    report = sys.unraisablehook

    def unraisable(lost: UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            _again()
        else:
            report(lost)

    sys.unraisablehook = unraisable
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_: int, frame: FrameType | None) -> None:
    """What Python does, but not while an extension module sets itself up."""
    while frame:
        if isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return _again()
        frame = frame.f_back
    raise KeyboardInterrupt


def _again() -> None:
    main_thread = threading.main_thread().ident
    timer = threading.Timer(AGAIN, signal.pthread_kill, (main_thread, signal.SIGINT))
    timer.daemon = True  # whoever is done by then needs no Ctrl-C
    timer.start()
