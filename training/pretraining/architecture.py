"""Family name and sizes → a Hugging Face configuration of a small model for byte-level text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from layerpick.training.errors import LayerpickError


@dataclass(frozen=True)
class Architecture:
    """What a built-in model is made of; `width` must be a multiple of `heads`."""

    family: str
    """A name in `FAMILIES`."""
    layers: int
    width: int
    """Size of the residual stream."""
    heads: int
    feed_forward: int
    """Inner size of the feed-forward block."""
    kv_heads: int | None = None
    """Key-value heads, in families that share them; as many as `heads` unless given."""
    max_length: int = 256
    """Longest text, in tokens."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights; narrow models learn sooner from larger ones."""

    def config(self, vocabulary: int, pad: int, eos: int) -> PretrainedConfig:
        """The configuration for a vocabulary of this size, without any dropout.

        Raises LayerpickError when the family is unknown.
        """
        if self.family not in FAMILIES:
            raise LayerpickError(
                f"'{self.family}' is not a family that can be built; "
                f"choose from {sorted(FAMILIES)}."
            )
        model_type, options = FAMILIES[self.family]
        return AutoConfig.for_model(
            model_type,
            vocab_size=vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.max_length,
            tie_word_embeddings=True,
            initializer_range=self.initializer_range,
            pad_token_id=pad,
            bos_token_id=None,
            eos_token_id=eos,
            **options(self),
        )

    def build(self, vocabulary: int, pad: int, eos: int) -> PreTrainedModel:
        """A float32 model with random weights drawn from PyTorch's global generator."""
        return AutoModelForCausalLM.from_config(self.config(vocabulary, pad, eos))


def _gated(sizes: Architecture) -> dict[str, Any]:
    return {
        "intermediate_size": sizes.feed_forward,
        "num_key_value_heads": sizes.kv_heads or sizes.heads,
        "head_dim": sizes.width // sizes.heads,
    }


def _gemma3(sizes: Architecture) -> dict[str, Any]:
    return {**_gated(sizes), "query_pre_attn_scalar": sizes.width // sizes.heads}


def _gpt2(sizes: Architecture) -> dict[str, Any]:
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return {"n_inner": sizes.feed_forward, **dropouts}


def _gpt_neox(sizes: Architecture) -> dict[str, Any]:
    return {"intermediate_size": sizes.feed_forward}


FAMILIES: Mapping[str, tuple[str, Callable[[Architecture], dict[str, Any]]]] = {
    "qwen3": ("qwen3", _gated),
    "qwen2": ("qwen2", _gated),
    "llama": ("llama", _gated),
    "gemma3": ("gemma3_text", _gemma3),
    "gpt2": ("gpt2", _gpt2),
    "gpt_neox": ("gpt_neox", _gpt_neox),
}
"""Name → its Hugging Face model type and the options that only this family has."""
