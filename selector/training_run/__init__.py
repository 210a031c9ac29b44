"""`layerpick train` and `apply`: one layer trained, and merged into a model."""
