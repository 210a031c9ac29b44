"""Races: what early learning curves and a prediction foretell of final scores, and replays of it."""
