"""`layerpick evaluate`: how well models never seen are predicted."""
