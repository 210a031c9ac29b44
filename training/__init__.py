"""Everything that samples from or changes a model.

`from layerpick.training import load_with_delta` gives a base model with a trained layer in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerpick.training.runs.delta import load_with_delta

__all__ = ["load_with_delta"]


def __getattr__(name: str) -> Any:
    """Import on first use: this room must not load PyTorch by being named."""
    if name != "load_with_delta":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from layerpick.training.runs.delta import load_with_delta

    return load_with_delta
