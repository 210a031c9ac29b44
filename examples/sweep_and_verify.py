"""Measure every layer of the built-in model, and see whether the suggestion was right.

    python examples/sweep_and_verify.py [FOLDER]

A few steps and prompts only, so that it takes a minute; leave `rl` and `heldout` out for real
numbers.
"""

import sys
from pathlib import Path

import layerpick

out = Path(sys.argv[1] if len(sys.argv) > 1 else "layerpick-example")
suggestion = layerpick.suggest(rollouts=layerpick.RolloutChoice(prompts=16))
suggestion.save(out / "suggestion.json")
measured = layerpick.sweep(
    rl=layerpick.RlSettings(steps=3, prompts=8),
    heldout=layerpick.HeldOutChoice(heldout_prompts=32, heldout_samples=2),
    choice=layerpick.SweepChoice(learning_rates=(5e-4,), probes="none"),
    out=out / "sweeps",
)
for layer, score in measured.layers.items():
    print(f"layer {layer}: {score.mean:.3f} ± {score.error:.3f}")
verification = layerpick.verify(out / "suggestion.json", sweep=out / "sweeps")
print(f"Picked layer {suggestion.pick}; rank {verification.rank} of {len(measured.layers)}.")
