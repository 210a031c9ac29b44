"""`layerpick rollouts`: what a model is asked, what it says, and what that earns."""
