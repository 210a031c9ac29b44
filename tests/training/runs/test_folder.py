"""The folder of a run, which may be one that a person keeps other things in."""

from __future__ import annotations

from layerpick.training.runs.folder import RunFolder


def test_only_what_a_killed_run_has_left_is_removed(tmp_path):
    own = [".checkpoint-10-abc", ".metrics.jsonl-abc", ".layer_delta.safetensors-abc"]
    others = [".oh-my-zsh", ".venv-gpu", "checkpoint-notes"]
    for name in (*own, *others):
        (tmp_path / name).mkdir()
    RunFolder(tmp_path).begin(0)
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == set(others)
