"""The pure training step and its parts: state, batches, metrics, averages, precision, trees of arrays."""
