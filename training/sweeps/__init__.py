"""Sweeps: which runs, their records, and the two ways to measure them."""
