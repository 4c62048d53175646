"""The files of a run's directory: locks, checkpoints, results."""
