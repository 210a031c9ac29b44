"""`layerpick vote`: several single-layer models answer, and the majority counts."""
