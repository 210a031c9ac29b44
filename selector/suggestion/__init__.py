"""`layerpick suggest`: which layer to train, and why."""
