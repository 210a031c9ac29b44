"""Reinforcement learning of many policies in one pass."""
