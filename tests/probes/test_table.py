"""All probes together: choosing them, running them on every family, and what a person sees."""

import dataclasses

import numpy as np
import pytest
import torch

from layerpick.calibration.judging.baselines import BASELINES
from layerpick.probes.base import Measurement, ProbeSizes
from layerpick.probes.gradient.probe import GradientProbe
from layerpick.probes.run import run_probe
from layerpick.probes.table import PROBES, chosen_probes
from layerpick.probes.testing import check_description, check_probe, check_repeats
from layerpick.probes.trials.one_step import OneStepProbe
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import load_model

MEASURING = [probe for probe in PROBES.values() if probe.needs != "training"]


def test_names_and_classes_choose_probes():
    assert chosen_probes("all") == tuple(PROBES)
    assert chosen_probes("gradient, weights") == ("weights", "gradient")
    assert chosen_probes("forward,hidden") == ("hidden", "bypass")
    with pytest.raises(LayerpickError, match=r"'chess' is unknown: use weights, hidden"):
        chosen_probes("chess")


def test_every_feature_has_one_name_and_is_described():
    infos = [info for probe in PROBES.values() for info in probe.features]
    assert len({info.name for info in infos}) == len(infos)
    for probe in PROBES.values():
        check_description(probe)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_probes_run_on_every_family(make_probe_input, tiny, family, dtype):
    """Those that train have a test of their own."""
    model = tiny(family)
    model.model.to(dtype)
    for probe in MEASURING:
        probe_input = make_probe_input(model, other={"groups": 2, "seed": 1, "silent": 0})
        assert check_probe(probe, probe_input).cost.peak_bytes > 1e7


def test_equal_seeds_give_equal_features(make_probe_input, tiny):
    probe_input = make_probe_input(tiny("qwen3"))
    for probe in (*MEASURING, OneStepProbe):
        check_repeats(probe, probe_input)


class Broken(GradientProbe):
    def measure(self, probe_input, on_done=lambda _: None):
        raise ValueError("no such thing\nand more")


class HalfBroken(GradientProbe):
    def measure(self, probe_input, on_done=lambda _: None):
        found = {"good": np.ones(3), "bad": np.array([1.0, np.nan, 2.0])}
        return Measurement(found, 5, {"third": "no room", "fourth": "no room"})


def test_a_failing_probe_says_why(make_probe_input, tiny):
    probe_input = make_probe_input(tiny("qwen3"))
    broken = run_probe(Broken(), probe_input)
    assert broken.features == {} and broken.failure == "ValueError: no such thing"
    half = run_probe(HalfBroken(), probe_input)
    assert list(half.features) == ["good"]
    assert half.failure == "third, fourth: no room; bad: not finite"


def test_baselines_rank_as_their_names_say():
    features = {
        "gradient_norm": np.array([1.0, 3.0, 2.0]),
        "relative_gradient_norm": np.array([3.0, 1.0, 2.0]),
        "spectrum_snr": np.array([1.0, 2.0, 3.0]),
        "power_law_alpha": np.array([4.0, 2.0, 3.0]),
        "block_influence": np.array([0.1, 0.2, 0.4]),
    }
    picks = {
        name: int(baseline.scores(3, features).argmax()) for name, baseline in BASELINES.items()
    }
    del picks["random"]
    assert picks == {
        "middle first": 1,
        "earlier first": 0,
        "later first": 2,
        "gradient norm": 1,
        "auto-RGN": 0,
        "Spectrum SNR": 2,
        "WeightWatcher α": 0,
        "block influence": 2,
    }
    known = {info.name for probe in PROBES.values() for info in probe.features}
    assert all(b.feature is None or b.feature in known for b in BASELINES.values())
    random = BASELINES["random"]
    assert random.scores(9, {}, 1).tolist() == random.scores(9, {}, 1).tolist()
    assert random.scores(9, {}, 1).tolist() != random.scores(9, {}, 2).tolist()


def test_the_sizes_bound_what_is_read(make_probe_input, tiny):
    """Four times the prompts: the probes with a size of their own read no more."""
    small, large = (make_probe_input(tiny("qwen3"), groups=n, silent=0) for n in (40, 160))
    for name in ("hidden", "bypass", "curvature", "attribution"):
        few = dataclasses.replace(small.sizes, trajectories=80)
        tokens = [
            run_probe(PROBES[name](), dataclasses.replace(probe_input, sizes=few)).cost.tokens
            for probe_input in (small, large)
        ]
        assert tokens[1] < 1.5 * tokens[0], name


FEW = ProbeSizes(
    lens_positions=8,
    bypass_pairs=1,
    token_class_groups=2,
    curvature_trajectories=2,
    attribution_trajectories=2,
    integration_steps=1,
)


@pytest.mark.real
@pytest.mark.parametrize(
    "names",
    [
        ("hidden", "bypass", "gradient", "one_step"),
        pytest.param(("weights", "curvature", "attribution"), marks=pytest.mark.slow),
    ],
)
def test_probes_run_on_a_real_model(make_probe_input, smollm2, names):
    model = load_model(smollm2, device="cpu")
    few = {"groups": 2, "size": 3, "silent": 0}
    probe_input = make_probe_input(model, sizes=FEW, seed=3, other={**few, "seed": 4}, **few)
    for name in names:
        result = run_probe(PROBES[name](), probe_input)
        assert result.failure is None
        assert set(result.features) == {info.name for info in PROBES[name].features}
        for values in result.features.values():
            assert values.shape == (30,) and np.isfinite(values).all()
