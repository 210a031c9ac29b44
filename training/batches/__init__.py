"""Trajectories as tensors: padded, or packed so that a prompt is read once."""
