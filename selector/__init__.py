"""The commands: one folder each, with its options, its function and its report."""
