"""Load a causal language model with its tokenizer and decoder layers, safely.

Remote code is off unless asked for by name. Every way in which a model can be unfit is one
sentence (LayerpickError).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from layerpick.training.errors import LayerpickError
from layerpick.training.models.formats import number_format
from layerpick.training.models.layers import DecoderLayers, find_decoder_layers
from layerpick.training.models.sources import ModelFolder, locate
from layerpick.training.reading import reading, reason_of
from layerpick.training.tensor_files import require_finite

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "spiece*")
_FETCH_AGAIN = "fetch the model again"
_OTHER_STATES = {"linear_attention", "mamba", "conv", "hybrid", "hybrid_sliding"}
"""Kinds of layers, as transformers' configurations name them."""


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights a result belongs to."""

    name: str
    revision: str | None
    weights_hash: str
    """SHA-256 over the weight files (64 hex digits)."""


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in evaluation mode, its tokenizer and its decoder layers."""

    model: Any
    tokenizer: Any
    layers: DecoderLayers
    identity: ModelIdentity
    folder: Path

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the model's weights."""
        return self.model.get_input_embeddings().weight.dtype


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    pad_token: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model by Hub id, local folder or .gguf file.

    dtype `auto` is what pays (see `number_format`); device `auto` is CUDA where there is
    one, else the CPU. Raises LayerpickError for everything that makes the model unfit: missing,
    damaged, not causal, no tokenizer, no pad token, no decoder layers.
    """
    target = _device(device)
    folder = locate(name, revision, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    config = read_config(folder, trust_remote_code)
    _refuse_other_states(name, config)
    tokenizer = _tokenizer(folder, pad_token, trust_remote_code)
    model = _weights(folder, config, number_format(dtype, target, config), trust_remote_code)
    held = str(model.dtype).removeprefix("torch.")
    remedy = f"get new files, or use --dtype float32 if {held} cannot hold it"
    require_finite(dict(model.named_parameters()), f"{name}: the weight", remedy)
    with reading(folder.path / "config.json", "a model's configuration", _FETCH_AGAIN):
        layers = find_decoder_layers(model)
        model.to(target).eval().requires_grad_(False)
        first, second = _first_predictions(model)
    _refuse_if_not_causal(name, model, first, second)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise LayerpickError(
            f"The tokenizer of {name} has {len(tokenizer)} tokens and its embedding only "
            f"{model.get_input_embeddings().weight.shape[0]}: they do not belong together."
        )
    identity = ModelIdentity(name, folder.revision, folder.weights_hash())
    return LoadedModel(model, tokenizer, layers, identity, folder.path)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise LayerpickError(
            f"The device '{device}' is not available here: use --device cpu."
        ) from error
    if target.type == "meta":
        raise LayerpickError("The device 'meta' holds no numbers: use --device cpu.")
    return target


def read_config(folder: ModelFolder, trust_remote_code: bool) -> Any:
    """A causal language model's config. Raises LayerpickError for a model of another kind."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        config = AutoConfig.from_pretrained(folder.path, trust_remote_code=trust_remote_code)
    except Exception as error:  # a library's: whatever it is, the file is at fault
        if "trust_remote_code" in str(error):
            raise LayerpickError(
                f"{folder.name} needs code from its own repository, which would run on your "
                f"machine: read it, then use --trust-remote-code."
            ) from error
        raise LayerpickError(
            f"The config.json of {folder.name} cannot be read: {reason_of(error)}."
        ) from error
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if config.is_encoder_decoder or not (known or hasattr(config, "auto_map")):
        raise LayerpickError(
            f"{folder.name} is a '{config.model_type}' model, not a causal language model: it "
            f"cannot write text left to right."
        )
    return config


def _refuse_other_states(name: str, config: Any) -> None:
    """Layers that remember in another way than by keys and values cannot be decoded in batches.

    A state that all tokens run through would take in padding and rows that wait.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    kinds = getattr(config.get_text_config(decoder=True), "layer_types", None)
    made_of = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    other = bool(_OTHER_STATES & set(kinds)) if kinds else getattr(made_of, "_is_stateful", False)
    if other:
        raise LayerpickError(
            f"{name} is a '{config.model_type}' model, some of whose layers remember in another "
            f"way than by keys and values (linear attention, Mamba, convolution): layerpick works "
            f"on models of attention alone so far."
        )


def _tokenizer(folder: ModelFolder, pad_token: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    # Without any file, some classes make up an empty tokenizer and say nothing.
    if not any(file for kind in _TOKENIZER_FILES for file in folder.path.glob(kind)):
        raise LayerpickError(
            f"{folder.name} has no tokenizer: add its tokenizer files to {folder.path}."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder.path, trust_remote_code=trust_remote_code, padding_side="left"
        )
    except Exception as error:  # a library's: whatever it is, the files are at fault
        raise LayerpickError(
            f"The tokenizer of {folder.name} in {folder.path} cannot be read: {reason_of(error)}."
        ) from error
    if pad_token is not None:
        known = pad_token == tokenizer.unk_token
        if not known and tokenizer.convert_tokens_to_ids(pad_token) in (
            None,
            tokenizer.unk_token_id,
        ):
            raise LayerpickError(f"The tokenizer of {folder.name} has no token '{pad_token}'.")
        tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id is None:
        example = tokenizer.eos_token or "<|endoftext|>"
        raise LayerpickError(
            f"The tokenizer of {folder.name} has no pad token: name one with "
            f"--pad-token '{example}'."
        )
    return tokenizer


def _weights(folder: ModelFolder, config: Any, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder.path,
            config=config,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=not folder.pickled,  # or else it would take pickled ones, if any
            output_loading_info=True,
        )
    except Exception as error:  # a library's: whatever it is, the files are at fault
        raise LayerpickError(
            f"The weights of {folder.name} in {folder.path} cannot be read "
            f"({reason_of(error)}): the files are truncated or damaged, or its config.json is; "
            f"fetch them again."
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise LayerpickError(
            f"The weights of {folder.name} lack {len(missing)} tensors that {type(model).__name__} "
            f"needs, first {missing[0]}: the model is not a causal language model, or its files "
            f"are incomplete."
        )
    return model


@torch.no_grad()
def _first_predictions(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What follows the first token of two texts that differ in their second: (vocabulary,) each.

    Raises ValueError where the model does not work at all.
    """
    device = model.get_input_embeddings().weight.device
    pair = torch.tensor([[0, 1], [0, 2]], device=device)
    first, second = model(input_ids=pair).logits[:, 0].float()
    if not (first.isfinite().all() and second.isfinite().all()):
        raise ValueError("with it, the model's predictions are not finite")
    return first, second


def _refuse_if_not_causal(name: str, model: Any, first: torch.Tensor, second: torch.Tensor) -> None:
    """An encoder lets its first token see the second: change that one and compare."""
    if not torch.allclose(first, second, rtol=1e-2, atol=1e-2 * float(first.abs().max())):
        raise LayerpickError(
            f"{name} is an encoder ({type(model).__name__}): a token's prediction depends on later "
            f"tokens, so it cannot write text left to right."
        )
