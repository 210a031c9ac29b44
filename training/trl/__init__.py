"""Reinforcement learning of one policy by TRL's trainer."""
