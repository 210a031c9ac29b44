"""Number formats that models are loaded in, and which of them pays on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from layerpick.training.errors import LayerpickError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL = 512
"""Models of less width stay float32 on a CPU: they take seconds in either format."""
PAYS = 2.0
"""How many times as fast a product must be in bfloat16: by AMX 4 to 8, AVX512_BF16 0.6 to 2.5."""


def number_format(dtype: str, device: torch.device, config: Any) -> torch.dtype:
    """The number format that a name stands for.

    `auto` is bfloat16 on CUDA, and on a CPU that multiplies it natively for models of a width of
    512 or more; float32 elsewhere. Raises LayerpickError for an unknown name.
    """
    if dtype != "auto":
        if dtype not in DTYPES:
            raise LayerpickError(f"The dtype '{dtype}' is unknown: use auto, {', '.join(DTYPES)}.")
        return DTYPES[dtype]
    if device.type == "cuda":
        return torch.bfloat16
    width = getattr(config.get_text_config(decoder=True), "hidden_size", 0)
    pays = device.type == "cpu" and width >= SMALL and cpu_multiplies_bfloat16()
    return torch.bfloat16 if pays else torch.float32


@cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether products of bfloat16 are much faster than those of float32 on this CPU.

    PyTorch knows what instructions there are, not what they are worth nor whether they are used:
    where there are some, one product is timed in both formats.
    """
    ask: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    native = [known for name, known in ask().items() if "bf16" in name]
    if native and not any(native):
        return False
    return PAYS * _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    """Processor time of a product, the least of a few: other work may share the machine."""
    left, right = (torch.ones(512, 512, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(5):
        start = time.process_time()
        left @ right
        times.append(time.process_time() - start)
    return min(times)
