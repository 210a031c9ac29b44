"""`layerpick verify`: a suggestion against what was measured."""
