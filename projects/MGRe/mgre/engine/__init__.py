"""A training: its step, its hooks, its checkpoints, its processes; and a run from the config to the results."""
