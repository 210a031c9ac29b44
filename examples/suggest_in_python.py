"""Which layer? The same as `layerpick suggest`, as a typed value.

python examples/suggest_in_python.py
"""

import layerpick

suggestion = layerpick.suggest(
    task="math", rollouts=layerpick.RolloutChoice(prompts=16), probes=["weights", "gradient"]
)
print(f"Train layer {suggestion.pick} of {len(suggestion.layers)}.")
for layer in suggestion.ranked:
    low, high = layer.interval
    print(f"  layer {layer.layer}: {layer.predicted:.2f} ({low:.2f} to {high:.2f})")
