"""What a person sees of the probes."""

import json

import pytest

import layerpick.probes.table as probe_table
from layerpick import suggest
from layerpick.probes.gradient.probe import GradientProbe
from layerpick.probes.table import PROBES
from layerpick.selector.app import probes as probes_command
from layerpick.selector.suggestion.picture import draw_suggestion
from layerpick.selector.suggestion.report import MOST_SHOWN, sentences, shown_features


def test_probes_are_listed_with_all_that_is_known_of_them(capsys):
    probes_command.probes()
    text = " ".join(capsys.readouterr().out.split())
    probes_command.probes(as_json=True)
    listed = {probe["name"]: probe for probe in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(PROBES)
    for name, probe in PROBES.items():
        assert listed[name]["cost_class"] == probe.needs and listed[name]["needs"]
        features = listed[name]["features"]
        assert [f["name"] for f in features] == [info.name for info in probe.features]
        assert all({"about", "formula", "source"} <= set(f) for f in features)
        assert all(f"{info.name}: " in text for info in probe.features)


class Broken(GradientProbe):
    name = "broken"

    def measure(self, probe_input, on_done=lambda _: None):
        raise RuntimeError("this [model] has no such thing")


@pytest.fixture
def suggestion(tiny, settings, few, short, monkeypatch):
    table = {**PROBES, "broken": Broken}
    monkeypatch.setattr(probe_table, "PROBES", table)
    names = ["weights", "hidden", "broken", "gradient", "one_step"]
    folder = str(tiny("qwen3").folder)
    return suggest(folder, settings=settings, rollouts=few, sampling=short, probes=names)


def test_a_failing_probe_is_left_out_and_the_suggestion_says_so(suggestion):
    failures = {probe.name: probe.failure for probe in suggestion.cost.probes}
    assert failures["broken"] == "RuntimeError: this [model] has no such thing"
    assert failures["gradient"] is None
    assert {"gradient_snr", "block_influence"} <= set(suggestion.layers[0].features)
    lines = sentences(suggestion)
    assert any(line.startswith("Left out of broken:") and "no such thing" in line for line in lines)


def test_what_each_probe_cost_is_printed(suggestion):
    (line,) = (line for line in sentences(suggestion) if line.startswith("Probes"))
    for probe in suggestion.cost.probes:
        assert probe.peak_bytes > 1e7
        assert f"{probe.name} {probe.seconds:.1f} s" in line


def test_tables_and_pictures_show_a_few_features(suggestion, tmp_path):
    measured = suggestion.layers[0].features
    shown = shown_features(suggestion)
    assert len(measured) > 30 and 3 < len(shown) <= MOST_SHOWN
    moved = [each.feature for each in suggestion.influences if each.feature in measured]
    assert shown[: len(moved)] == moved[:MOST_SHOWN]
    assert any(f"All {len(measured)} features of each layer" in x for x in sentences(suggestion))
    draw_suggestion(suggestion, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").stat().st_size > 1000
