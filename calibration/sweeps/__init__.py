"""Measured and published sweeps, as files and as values."""
