"""Turn what a person calls a model into a local folder with its weights.

A model is a Hub id, a local folder, a `.gguf` file, or nothing (the built-in reference model of
the task). Weights are safetensors or GGUF; pickled weights are refused unless allowed by name,
because unpickling runs code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from layerpick.training.errors import LayerpickError
from layerpick.training.files import cache_folder, hash_files, replacing, writing
from layerpick.training.reading import reading, reason_of

_DESCRIPTION_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class ModelFolder:
    """A local Hugging Face folder and where it came from."""

    name: str
    """What the person called the model."""
    path: Path
    revision: str | None
    """Commit on the Hub; None for local models."""
    weights: tuple[Path, ...]
    """Safetensors, or, where there are none, pickled ones."""

    @property
    def pickled(self) -> bool:
        """Whether reading the weights means unpickling."""
        return any(file.suffix == ".bin" for file in self.weights)

    def weights_hash(self) -> str:
        """SHA-256 over the weight files."""
        return hash_files(self.weights)


def locate(
    name: str,
    revision: str | None = None,
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> ModelFolder:
    """Find or fetch a model's folder.

    Raises LayerpickError when it is missing, cannot be fetched, or has no acceptable weights.
    """
    path = _home_expanded(name)
    if path.suffix == ".gguf":
        folder, commit = _from_gguf(path), None
    elif path.is_dir():
        folder, commit = path, None
    elif path.exists():
        raise LayerpickError(f"{name} is a file; give a model folder, a .gguf file or a Hub id.")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise LayerpickError(f"The model folder {name} does not exist.")
    else:
        patterns = ["*.safetensors", *_DESCRIPTION_FILES]
        patterns += ["*.bin"] if allow_pickle else []
        patterns += ["*.py"] if trust_remote_code else []
        folder = _from_hub(name, revision, patterns)
        commit = folder.name
    if revision is not None and commit is None:
        raise LayerpickError(f"--revision is for models on the Hub; {name} is a local model.")
    if not (folder / "config.json").is_file():
        raise LayerpickError(f"{name} has no config.json, so it is not a Hugging Face model.")
    if (folder / "adapter_config.json").is_file():
        raise LayerpickError(
            f"{name} holds an adapter, which would be put into the model: merge it, or take its "
            f"adapter_config.json away."
        )
    return ModelFolder(name, folder, commit, _weight_files(name, folder, allow_pickle))


def _home_expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise LayerpickError(f"{name}: there is no home folder of that user.") from error


def _weight_files(name: str, folder: Path, allow_pickle: bool) -> tuple[Path, ...]:
    safe = safe_files(name, folder)
    pickled = sorted(folder.glob("*.bin"))
    if safe:
        return safe
    if pickled and not allow_pickle:
        raise LayerpickError(
            f"{name} has only pickled weights ({pickled[0].name}), and unpickling can run any "
            f"code: use a safetensors version, or --allow-pickle if you trust its author."
        )
    if not pickled:
        hint = "" if allow_pickle else " (pickled weights, if any, need --allow-pickle)"
        raise LayerpickError(f"{name} has no safetensors weights{hint}.")
    return tuple(pickled)


def safe_files(name: str, folder: Path) -> tuple[Path, ...]:
    """The one file, or those of the index, as transformers looks for them; none without either.

    Raises LayerpickError for an index that names files which are not there.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return (whole,)
    if not index.is_file():
        return ()
    with reading(index, "an index of weight files", "fetch the model again"):
        needed = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        if not needed or not all(Path(shard).name == shard for shard in needed):
            raise ValueError("it lists no files of this folder")
    missing = sorted(shard for shard in needed if not (folder / shard).is_file())
    if missing:
        raise LayerpickError(
            f"{name} lacks {len(missing)} of its {len(needed)} weight files, first {missing[0]}: "
            f"download it again."
        )
    return tuple(folder / shard for shard in sorted(needed))


def _from_hub(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise LayerpickError(
            f"{name} is gated: accept its terms on the Hub, then log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise LayerpickError(f"{name} has no revision '{revision}' on the Hub.") from error
    except RepositoryNotFoundError as error:
        raise LayerpickError(
            f"There is no model '{name}' on the Hub (nor a local folder of that name), or it is "
            f"private and you are not logged in."
        ) from error
    except HFValidationError as error:
        raise LayerpickError(
            f"'{name}' is neither a local folder nor a valid Hub id (owner/name)."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise LayerpickError(
            f"'{name}' is not a local folder, is not in the local cache"
            f"{f' at revision {revision!r}' if revision else ''}, and the Hub cannot be reached: "
            f"check the name and the network, or give a local folder or a .gguf file."
        ) from error


def _from_gguf(path: Path) -> Path:
    """Convert a GGUF file once, by transformers' own reader, into a cached safetensors folder."""
    if not path.is_file():
        raise LayerpickError(f"The GGUF file {path} does not exist.")
    target = cache_folder() / "gguf" / f"{path.stem}-{hash_files([path])[:16]}"
    if target.is_dir():
        return target
    from filelock import FileLock

    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):  # several processes may ask at once
            if not target.is_dir():
                _convert(path, target)
    return target


def _convert(path: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    except Exception as error:
        raise LayerpickError(
            f"The GGUF file {path} could not be read ({reason_of(error)}): it is damaged, or of an "
            f"architecture that transformers does not convert."
        ) from error
    # The reader has dequantised every tensor; these marks alone would forbid saving them.
    model.hf_quantizer = None
    model.config.__dict__.pop("quantization_config", None)
    with replacing(target) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
