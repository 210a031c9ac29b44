"""Tiny language models trained from scratch: the built-in reference models and their relatives."""
