"""Tasks with verifiable rewards: one file each, found by name in `table.py`."""
