"""`layerpick auto`: suggest, train, score, compare."""
