"""Races: what a prediction and early curves foretell of final scores; replays."""
