"""`layerpick calibrate`: predictors fitted to one's own sweeps too."""
