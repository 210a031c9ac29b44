"""`layerpick sweep`: the measured truth."""
