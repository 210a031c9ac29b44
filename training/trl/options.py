"""`--trl key=value`: any field of TRL's GRPOConfig, by name."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Sequence
from typing import Any, Union

from layerpick.training.errors import LayerpickError

OWN_OPTIONS = {
    "beta": "--beta",
    "bf16": "--dtype",
    "chat_template_kwargs": "--chat-template-kwargs",
    "epsilon": "--epsilon",
    "fp16": "--dtype",
    "generation_batch_size": "--prompts and --group-size",
    "gradient_accumulation_steps": "--micro-batch",
    "gradient_checkpointing": "--gradient-checkpointing",
    "learning_rate": "--learning-rate",
    "loss_type": "--algorithm",
    "max_completion_length": "--max-new-tokens",
    "max_grad_norm": "--max-grad-norm",
    "max_steps": "--steps",
    "num_generations": "--group-size",
    "num_train_epochs": "--steps",
    "output_dir": "--out",
    "per_device_train_batch_size": "--prompts and --group-size",
    "report_to": "--report-to",
    "resume_from_checkpoint": "--out",
    "save_steps": "--checkpoint-every",
    "save_strategy": "--checkpoint-every",
    "scale_rewards": "--algorithm",
    "seed": "--seed",
    "steps_per_generation": "--prompts and --group-size",
    "temperature": "--temperature",
    "use_cpu": "--device",
    "use_vllm": "--vllm",
    "vllm_mode": "--vllm",
}
"""Fields that an option of layerpick's own sets."""
REFUSED = {
    "deepspeed": "several processes are DDP or FSDP2 (accelerate launch)",
    "do_eval": "scores are taken before and after",
    "eval_on_start": "scores are taken before and after",
    "eval_strategy": "scores are taken before and after",
    "fsdp": "the launcher sets it up (accelerate launch --use_fsdp --fsdp_version 2)",
    "fsdp_config": "the launcher sets it up (accelerate config)",
    "logging_first_step": "every step is kept",
    "logging_steps": "every step is kept",
    "logging_strategy": "every step is kept",
    "push_to_hub": "nothing is uploaded",
}
"""Fields that cannot be had, and why."""
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_trl_options(given: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as GRPOConfig fields, each of its declared type.

    Lists and dictionaries are JSON; `none` is None where the field may be None. Raises
    LayerpickError for an unknown field, a value of the wrong type, and a field that an option of
    layerpick's own sets.
    """
    from trl import GRPOConfig

    types_of = typing.get_type_hints(GRPOConfig)
    values = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise LayerpickError(f"--trl '{text}' is not of the form key=value.")
        if key in OWN_OPTIONS:
            raise LayerpickError(f"--trl {key} is set by {OWN_OPTIONS[key]}: use that.")
        if key in REFUSED:
            raise LayerpickError(f"--trl {key} is not possible: {REFUSED[key]}. Leave it out.")
        if key not in types_of or key.startswith("_"):
            near = difflib.get_close_matches(key, types_of, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise LayerpickError(f"--trl {key}: GRPOConfig has no such field{hint}")
        if key == "sync_ref_model" and _BOOLEANS.get(value.lower()):
            raise LayerpickError(
                "--trl sync_ref_model: the KL penalty is measured from the base model, whose "
                "original layer is put back for it, so there is no second model to synchronise."
            )
        values[key] = _convert(key, value, types_of[key])
    return values


def _convert(key: str, text: str, declared: Any) -> Any:
    """Try the declared types from the strictest to plain text."""
    choices = _members(declared)
    if type(None) in choices and text.lower() in ("none", "null"):
        return None
    for kind in (bool, int, float, list, dict, str):
        if kind in choices:
            try:
                return _READERS[kind](text)
            except (ValueError, KeyError):
                continue
    expected = " or ".join(sorted(kind.__name__ for kind in choices if kind is not type(None)))
    raise LayerpickError(f"--trl {key}={text}: the value must be of type {expected}.")


def _members(declared: Any) -> set[type]:
    """Plain types that a declared type allows: those of a union, without their parameters."""
    origin = typing.get_origin(declared)
    if origin in (Union, types.UnionType):
        return {kind for part in typing.get_args(declared) for kind in _members(part)}
    plain = origin or declared
    if isinstance(plain, type) and issubclass(plain, str):
        return {str}  # enumerations of texts
    return {plain if isinstance(plain, type) else str}


def _json(kind: type) -> Any:
    def read(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise ValueError(text)
        return value

    return read


_READERS: dict[type, Any] = {
    bool: lambda text: _BOOLEANS[text.lower()],
    int: int,
    float: float,
    list: _json(list),
    dict: _json(dict),
    str: str,
}
