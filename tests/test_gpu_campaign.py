"""The GPU campaign, small, on whatever there is: every part runs and says what it measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def campaign():
    spec = importlib.util.spec_from_file_location("gpu_campaign", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_part_measures(campaign, tmp_path, capsys):
    campaign.main(["--small", "--shapes", "qwen3-0.6b", "--out", str(tmp_path / "gpu.json")])
    found = json.loads((tmp_path / "gpu.json").read_text())["qwen3-0.6b"]
    assert found.keys() == set(campaign.PARTS)
    assert not {name: part["failure"] for name, part in found.items() if "failure" in part}
    assert found["decode"]["decoder"] > 0 and found["decode"]["generate"] > 0
    assert found["step"]["policies"] == 2 and found["step"]["times_faster"] > 0
    assert all(found["train"][engine]["seconds"] > 0 for engine in ("trl", "own"))
    probes = found["suggest"]["probes"]
    for name in ("weights", "one_step", "off_policy", "warm_up"):
        assert probes[name]["failure"] is None, name
    assert list(found["suggest"]["levels"].values()) == sorted(found["suggest"]["levels"].values())


def test_shapes_are_those_of_the_models(campaign):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    millions = {"smollm2-135m": 134.5, "qwen3-0.6b": 596.0, "qwen3-4b": 4022.5}
    for name, expected in millions.items():
        with torch.device("meta"):
            config = AutoConfig.for_model(**campaign.SHAPES[name])
            model = AutoModelForCausalLM.from_config(config)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert count / 1e6 == pytest.approx(expected, abs=0.6), name
