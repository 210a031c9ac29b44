"""Where the shipped data lie: the one place that knows `data/`."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parent / "data"
SHIPPED_SWEEPS = DATA / "sweeps"
"""Measured by `layerpick sweep`, with features."""
PUBLISHED = DATA / "published"
"""Taken from arXiv 2607.01232."""
SHIPPED_PREDICTORS = DATA / "predictors"
POSITION_SETTINGS = SHIPPED_PREDICTORS / "position.json"
