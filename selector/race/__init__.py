"""`layerpick race`: the layers that may be best trained side by side, the winner kept."""
