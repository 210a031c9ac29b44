"""Measured sweeps, and predictors of contribution fitted on them."""
