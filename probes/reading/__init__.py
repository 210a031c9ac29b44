"""Passes over rollouts that several probes share."""
