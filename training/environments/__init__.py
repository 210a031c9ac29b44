"""Text worlds for the agentic task: one file each, found by name in `table.py`."""
