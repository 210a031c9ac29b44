"""The suggestion: which layer to train, why, and at what cost; and the command line.

`from layerpick.selector import suggest` gives what `layerpick suggest` prints, as a typed value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerpick.selector.settings import ModelChoice, RolloutChoice
    from layerpick.selector.suggestion.result import Suggestion, read_suggestion
    from layerpick.selector.suggestion.run import suggest

_HOMES = {
    "ModelChoice": "settings",
    "RolloutChoice": "settings",
    "Suggestion": "suggestion.result",
    "read_suggestion": "suggestion.result",
    "suggest": "suggestion.run",
}

__all__ = ["ModelChoice", "RolloutChoice", "Suggestion", "read_suggestion", "suggest"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line must answer `--help` without PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
