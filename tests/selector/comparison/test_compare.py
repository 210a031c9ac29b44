"""`layerpick compare`, from folders to tables, JSON and a heat map."""

from __future__ import annotations

import json

import pytest

from layerpick.calibration.judging.metrics import spearman
from layerpick.selector.comparison.command import PICTURE, compare
from layerpick.training.errors import LayerpickError


@pytest.fixture
def layerpick(runs):
    """Run the command; returns what it wrote to stdout."""
    return runs(compare)


def test_sweeps_are_compared_printed_and_drawn(layerpick, made_examples, write_sweep, tmp_path):
    first, second, third = made_examples(3)
    same = write_sweep(first, tmp_path / "a")
    for example in (second, third):
        write_sweep(example, tmp_path / "b")
    other = first.by_shares()
    renamed = type(first)(**{**vars(other), "algorithm": "dr_grpo"})
    write_sweep(renamed, tmp_path / "b")
    found = json.loads(layerpick(same, tmp_path / "b", "--json", "--out", tmp_path / "out"))
    assert len(found["sweeps"]) == 4
    pairs = {tuple(pair["sweeps"]): pair for pair in found["pairs"]}
    numbers = {s["algorithm"]: n for n, s in enumerate(found["sweeps"]) if s["model"] == "hash-0"}
    pair = pairs[tuple(sorted(numbers.values()))]
    assert pair["difference"] == "algorithm" and pair["points"] == first.layers
    assert pair["rho"] == pytest.approx(spearman(first.contributions, renamed.contributions))
    assert {mean["population"] for mean in found["means"]} == {"pretrained"}
    assert (tmp_path / "out" / PICTURE).read_bytes().startswith(b"\x89PNG")
    shown = layerpick(same, tmp_path / "b")
    assert "model-0 · math-grpo" in shown and f"{pair['rho']:.2f} / " in shown
    assert "pretrained: ρ" in shown and "algorithm" in shown


def test_published_sweeps_are_compared_too(layerpick):
    found = json.loads(layerpick("published", "--json"))
    assert len(found["sweeps"][0]["layers"]) == 28
    assert all(sweep["ceiling"] is None for sweep in found["sweeps"])
    assert {pair["difference"] for pair in found["pairs"]} <= {"model", "family"}


def test_what_cannot_be_compared_is_said(layerpick, made_examples, write_sweep, tmp_path):
    (example,) = made_examples(1)
    folder = write_sweep(example, tmp_path)
    with pytest.raises(LayerpickError, match=r"too few sweeps to compare \(1\): name two or more"):
        layerpick(folder)
    with pytest.raises(LayerpickError, match="no folder"):
        layerpick(folder, tmp_path / "nowhere")
    for file in folder.glob("full-*.json"):
        file.unlink()
    with pytest.raises(LayerpickError, match=r"too few sweeps to compare \(0\)"):
        layerpick(folder)
