"""What a model says to a task: prompts rendered, turns played, rewards kept."""
