"""From a name to a model: its files, weights, layers, defaults, and what is frozen."""
