"""What runs in our own sandboxes at a moment."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest


def sandboxed_processes() -> set[int]:
    """Living processes below this one in another process namespace than its own.

    A sandbox whose parent has ended is handed to this process, so nothing escapes this count.
    """
    ours, found = Path("/proc/self/ns/pid").readlink(), set()
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(OSError, psutil.Error):
            elsewhere = Path(f"/proc/{process.pid}/ns/pid").readlink() != ours
            if elsewhere and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


@pytest.fixture
def sandboxed() -> Callable[[], set[int]]:
    """`sandboxed()`: the processes in our sandboxes now."""
    return sandboxed_processes


@pytest.fixture
def left_in_sandboxes() -> Callable[[], set[int]]:
    """`left_in_sandboxes()`: those that are still there after up to three seconds."""

    def left() -> set[int]:
        end = time.monotonic() + 3
        while (found := sandboxed_processes()) and time.monotonic() < end:
            time.sleep(0.02)
        return found

    return left
