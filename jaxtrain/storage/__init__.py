"""Files of a run directory: locks, checkpoints, results."""
