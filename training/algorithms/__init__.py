"""How rewards become advantages and advantages a loss: one algorithm per file."""
