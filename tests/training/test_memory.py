"""Freed memory is handed back although blocks between it are in use."""

from pathlib import Path

import numpy as np
import pytest

from layerpick.training import memory

STATUS = Path("/proc/self/status")


def resident() -> int:
    """Bytes."""
    line = next(text for text in STATUS.read_text().splitlines() if text.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(
    memory._malloc_trim() is None or not STATUS.is_file(), reason="needs Linux with glibc"
)
def test_freed_blocks_between_used_ones_are_handed_back():
    size, count = 64 * 1024, 2000
    memory.return_freed_memory()
    before = resident()
    blocks = [np.ones(size, dtype=np.uint8) for _ in range(count)]
    kept = blocks[::100]
    held = resident() - before
    assert held > 0.9 * size * count
    del blocks
    memory.return_freed_memory()
    assert resident() - before < 0.2 * held
    assert all(block.all() for block in kept)


def test_nothing_happens_where_the_c_library_cannot(monkeypatch):
    monkeypatch.setattr(memory, "_malloc_trim", lambda: None)
    memory.return_freed_memory()
