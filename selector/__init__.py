"""The commands: which layer to train, why, at what cost; each with its options, function, report."""
