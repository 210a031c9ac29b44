"""Probes that train a layer for a few steps and look what comes of it."""
