"""Everything that samples from or changes a model."""
