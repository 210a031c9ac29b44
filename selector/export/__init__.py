"""`layerpick export`: what other trainers need to train exactly the chosen layer."""
