import dataclasses
import subprocess
import sys
from io import StringIO

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from layerpick import Suggestion, read_suggestion, suggest
from layerpick.selector.suggestion.report import (
    fitting_table,
    print_suggestion,
    ranking_table,
    sentences,
)
from layerpick.training.errors import LayerpickError


@pytest.fixture
def suggestion(tiny, settings, few, short) -> Suggestion:
    return run(tiny, settings, few, short)


def run(tiny, settings, few, short, **kwargs) -> Suggestion:
    folder = str(tiny("qwen3").folder)
    return suggest(
        folder,
        "math",
        settings=settings,
        rollouts=few,
        sampling=short,
        probes=["gradient"],
        **kwargs,
    )


def without_times(suggestion: Suggestion) -> dict:
    return suggestion.model_dump(exclude={"cost"})


def test_the_suggestion_says_what_it_must(suggestion):
    layers = suggestion.layers
    assert [layer.layer for layer in layers] == [0, 1, 2]
    assert suggestion.pick == max(layers, key=lambda layer: layer.predicted).layer
    assert suggestion.ranked[0].layer == suggestion.pick
    assert sum(layer.chance_best for layer in layers) == pytest.approx(1)
    for layer in layers:
        assert layer.interval[0] <= layer.predicted <= layer.interval[1]
        assert layer.measured is None
        assert layer.features and np.isfinite(list(layer.features.values())).all()
    assert "no measured sweep for a model like this" in suggestion.basis
    assert suggestion.rollouts.prompts == 4
    assert suggestion.cost.sampled_tokens == suggestion.rollouts.tokens > 0
    assert len(suggestion.model.weights_hash) == 64


def test_savings_by_hand(suggestion, tiny):
    model = tiny("qwen3")
    single = sum(p.numel() for p in model.layers[suggestion.pick].parameters())
    full = sum(p.numel() for p in model.model.parameters())
    savings = suggestion.savings
    assert (savings.trainable_parameters, savings.full_parameters) == (single, full)
    assert savings.training_bytes == single * (4 + 4 + 4)


def test_same_seed_same_suggestion_but_for_times(tiny, settings, few, short, suggestion):
    assert without_times(run(tiny, settings, few, short)) == without_times(suggestion)
    other = run(tiny, settings, few, short, seed=1)
    assert other.layers[0].features != suggestion.layers[0].features


def test_saved_rollouts_give_the_same_suggestion(tiny, settings, few, short, suggestion, tmp_path):
    path = tmp_path / "rollouts.safetensors"
    saved = run(tiny, settings, dataclasses.replace(few, save=path), short)
    reused = run(tiny, settings, dataclasses.replace(few, reuse=path), short)
    assert without_times(saved) == without_times(reused) == without_times(suggestion)
    other = dataclasses.replace(settings, dataset="reasoning-gym:chain_sum?max_digits=3")
    with pytest.raises(LayerpickError, match="sampled with other data"):
        run(tiny, other, dataclasses.replace(few, reuse=path), short)


def test_json_survives_the_round_trip(suggestion, tmp_path):
    suggestion.save(tmp_path / "suggestion.json")
    assert read_suggestion(tmp_path / "suggestion.json") == suggestion
    assert [path.name for path in tmp_path.glob(".*")] == []
    (tmp_path / "other.json").write_text("{}")
    for name in ("nothing.json", "other.json"):
        with pytest.raises(LayerpickError, match=name):
            read_suggestion(tmp_path / name)
    with pytest.raises(ValidationError):
        suggestion.pick = 2  # a value: nothing changes it


def test_published_measurements_are_shown_with_their_source(
    tiny, settings, few, short, monkeypatch
):
    """A local copy under the published model's name stands in for the model itself."""
    import layerpick.selector.suggestion.run as suggesting
    from layerpick.calibration.sweeps.published import find_sweep

    found = find_sweep("Qwen/Qwen3-1.7B-Base", "math", "grpo")
    monkeypatch.setattr(suggesting, "find_measured", lambda *_, **__: found)
    suggestion = run(tiny, settings, few, short)
    assert [layer.measured for layer in suggestion.layers] == pytest.approx(
        [found.contribution(layer) for layer in range(3)]
    )
    said = sentences(suggestion)
    assert "Measured contributions: published: arXiv 2607.01232." in said


def test_the_kind_of_contribution_is_said(suggestion):
    assert suggestion.rates == ("shared",)  # all shipped sweeps so far
    kinds = {
        ("shared",): "those of runs at one learning rate",
        ("own",): "each at its own best learning rate",
        ("own", "shared"): "both kinds",
    }
    for rates, words in kinds.items():
        lines = sentences(suggestion.model_copy(update={"rates": rates}))
        (line,) = (line for line in lines if line.startswith("Contributions are "))
        assert words in line
    told_before = sentences(suggestion.model_copy(update={"rates": ()}))
    assert not any(line.startswith("Contributions are ") for line in told_before)


def test_algorithms_change_the_gradient_features(tiny, settings, few, short, suggestion):
    other = run(tiny, settings, few, short, algorithm="dr_grpo")
    assert other.task.algorithm == "dr_grpo"
    assert other.layers[0].features != suggestion.layers[0].features


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"task": "chess"}, "unknown"),
        ({"algorithm": "ppo"}, "grpo, dr_grpo, gigpo"),
        ({"model": "/nowhere"}, "does not exist"),
    ],
)
def test_mistakes_are_one_sentence(tiny, settings, few, short, kwargs, said):
    arguments = {"model": str(tiny("qwen3").folder), "task": "math", **kwargs}
    with pytest.raises(LayerpickError, match=said):
        suggest(**arguments, settings=settings, rollouts=few, sampling=short)


NOT_TO_SUGGEST = (
    *("trl", "datasets", "peft", "vllm", "ray", "sklearn.ensemble", "sklearn.gaussian_process"),
    *("layerpick.training.trl", "layerpick.training.engine.run", "layerpick.training.engine.race"),
    *("layerpick.training.pretraining.zoo", "layerpick.training.pretraining.pretrain"),
    *("layerpick.calibration.judging.evaluation", "layerpick.calibration.races"),
    *(f"layerpick.selector.{name}.run" for name in ("training_run", "sweep", "race", "auto")),
)
"""Trainers, the making of models, the judging of predictors; TRL alone takes seconds to import."""


def test_suggesting_imports_nothing_that_trains_or_judges(tmp_path):
    script = (
        "import sys\n"
        "from layerpick.selector.app.app import run\n"
        "sys.argv = ['layerpick', 'suggest', '--prompts', '4', '--group-size', '4']\n"
        "sys.argv += ['--probes', 'gradient', '--json']\n"
        "assert run() == 0\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and '"pick"' in done.stdout, done.stderr
    imported = set(done.stderr.split())
    assert "layerpick.selector.suggestion.run" in imported
    assert not imported & set(NOT_TO_SUGGEST)


@pytest.mark.parametrize("width", [50, 80, 160])
def test_the_table_shows_as_many_features_as_there_is_room_for(suggestion, width):
    console = Console(width=width, file=StringIO())
    table = fitting_table(suggestion, console)
    console.print(table)
    printed = console.file.getvalue()
    if width >= 80:
        for column in table.columns:
            assert all(line in printed for line in str(column.header).split("\n"))
            assert all(str(cell) in printed for cell in column.cells)
    everything = fitting_table(suggestion, Console(width=1000)).columns
    assert (len(table.columns) < len(everything)) == (width < 80)


def test_the_middle_of_a_long_ranking_is_folded_unless_asked_for(suggestion):
    layer = suggestion.layers[0]
    many = tuple(
        layer.model_copy(update={"layer": number, "predicted": -number / 40})
        for number in range(40)
    )
    long = suggestion.model_copy(update={"layers": many, "pick": 0, "measured_by": None})
    consoles = {wide: Console(width=80, file=StringIO(), force_terminal=True) for wide in (0, 1)}
    for wide, console in consoles.items():
        print_suggestion(long, console, wide=bool(wide))
    folded, whole = (console.file.getvalue() for console in consoles.values())
    shown = [str(number) for number in range(40)]
    rows = {wide: ranking_table(long, folded=not wide).columns[1]._cells for wide in (0, 1)}
    assert [str(cell) for cell in rows[1]] == shown
    assert [str(cell) for cell in rows[0]] == [*shown[:12], "24 more", *shown[36:]]
    assert "--wide" in folded and "--wide" not in whole
    assert max(len(line) for line in whole.splitlines()) > 80


def test_the_answer_comes_first_and_says_what_it_may_cost(suggestion):
    first = sentences(suggestion)[0]
    assert f"layer {suggestion.pick}" in first
    assert f"{suggestion.expected_loss:.2f}" in first and f"{suggestion.loss_bound:.2f}" in first
    listed = [str(layer) for layer in suggestion.shortlist if layer != suggestion.pick]
    said = first.rpartition("may also be ")[2].removesuffix(".").replace(" or ", ", ")
    assert (said.split(", ") == listed) if listed else "no other comes near" in first
    old = suggestion.model_copy(update={"expected_loss": None})
    assert sentences(old)[0].endswith(f"of {len(old.layers)}.")
