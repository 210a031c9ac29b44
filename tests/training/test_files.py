"""Files that are whole or absent, and what is said where they cannot be written."""

from __future__ import annotations

import errno
import os

import pytest

from layerpick.training.errors import LayerpickError
from layerpick.training.files import replacing, write_text, writing


def test_what_fails_halfway_changes_nothing(tmp_path):
    path = tmp_path / "folder"
    with replacing(path) as temporary:
        temporary.mkdir()
        write_text(temporary / "a", "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.mkdir()
        write_text(temporary / "a", "new")
        raise KeyboardInterrupt
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_place_that_is_meant(tmp_path):
    """Also where a writer within knows but the temporary name."""
    path = tmp_path / "checkpoint-3"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(LayerpickError) as found, replacing(path) as temporary:
        temporary.mkdir()
        with writing(temporary / "trained.safetensors"):
            raise full
    assert str(found.value) == f"Cannot write {path}/trained.safetensors: {full.strerror}."
    other = LayerpickError("Something else.")
    with pytest.raises(LayerpickError) as found, replacing(path):
        raise other
    assert found.value is other
    assert not list(tmp_path.iterdir())
