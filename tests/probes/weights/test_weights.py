import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from layerpick.probes.weights.probe import WeightsProbe, weight_features
from layerpick.probes.weights.spectra import power_law_exponent, spectrum_snr, stable_rank
from layerpick.training.errors import LayerpickError


def obvious(matrices: list[np.ndarray]) -> dict[str, float]:
    spectra = [np.linalg.svd(m, compute_uv=False) for m in matrices]
    pairs = list(zip(spectra, matrices, strict=True))
    return {
        "spectrum_snr": np.mean([spectrum_snr(s, m.shape) for s, m in pairs]),
        "stable_rank": np.mean([stable_rank(s) for s in spectra]),
        "power_law_alpha": np.mean([power_law_exponent(s) for s in spectra]),
    }


def test_files_say_what_the_loaded_model_says(make_probe_input, tiny, family):
    model = tiny(family)
    found = WeightsProbe().measure(make_probe_input(model))
    assert set(found.features) == {info.name for info in WeightsProbe.features}
    assert found.features["relative_depth"].tolist() == [0, 0.5, 1]
    for layer, module in enumerate(model.layers):
        weights = [p.detach().double().numpy() for p in module.parameters()]
        norm = np.sqrt(sum((w**2).sum() for w in weights))
        assert found.features["parameter_norm"][layer] == pytest.approx(norm)
        matrices = []
        for (name, _), weight in zip(module.named_parameters(), weights, strict=True):
            if name.endswith("gate_up_proj") and weight.ndim == 3:  # stored apart
                halves = [part for w in weight for part in np.split(w, 2)]
                matrices += halves
            elif weight.ndim == 3:
                matrices += list(weight)
            elif weight.ndim == 2:
                matrices.append(weight)
        for name, value in obvious(matrices).items():
            assert found.features[name][layer] == pytest.approx(value, rel=1e-5), name


def test_layers_are_found_whatever_precedes_their_name(tiny, tmp_path):
    """`h.0.…` for `transformer.h.0.…`, and another list of that name beside it."""
    model = tiny("gpt2")
    expected = weight_features(model.folder, "transformer.h", 3).features
    tensors = load_file(model.folder / "model.safetensors")
    short = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    others = {f"vision.{name}": torch.ones(3, 3) for name in short if name.startswith("h.")}
    save_file({**short, **others}, tmp_path / "model.safetensors")
    found = weight_features(tmp_path, "transformer.h", 3).features
    for name, values in expected.items():
        assert found[name] == pytest.approx(values)


def test_missing_files_and_layers_are_one_sentence(tiny, tmp_path):
    with pytest.raises(LayerpickError, match="no safetensors"):
        weight_features(tmp_path, "model.layers", 3)
    shutil.copy(tiny("qwen3").folder / "model.safetensors", tmp_path)
    with pytest.raises(LayerpickError, match=r"the 4 decoder layers model\.layers"):
        weight_features(tmp_path, "model.layers", 4)


def test_a_flat_spectrum_leaves_features_out(tmp_path):
    tensors = {"model.layers.0.w": torch.zeros(4, 4), "model.layers.1.w": torch.eye(4)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = weight_features(tmp_path, "model.layers", 2)
    assert set(found.features) == {"relative_depth", "parameter_norm"}
    assert set(found.left_out) == {"spectrum_snr", "stable_rank", "power_law_alpha"}


MEASURE = """
import sys, torch
from pathlib import Path
from layerpick.probes.run import peak_memory
from layerpick.probes.weights.probe import weight_features
torch.set_num_threads(1)
folder = Path(sys.argv[1])
weight_features(folder / "small", "model.layers", 1)  # loads libraries
before = peak_memory(torch.device("cpu"))
weight_features(folder, "model.layers", 8)
print(peak_memory(torch.device("cpu")) - before)
"""


def test_memory_is_that_of_a_few_matrices(tmp_path):
    """48 matrices of 4 MB in one file, each 8 MB more in float64."""
    tensors = {
        f"model.layers.{layer}.w{index}": torch.randn(64, 16384)
        for layer in range(8)
        for index in range(6)
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "small").mkdir()
    first = {"model.layers.0.w": torch.randn(64, 64)}
    save_file(first, tmp_path / "small" / "model.safetensors")
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size > 190e6
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 0.5 * size
