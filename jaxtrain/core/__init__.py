"""The pure step, and what it needs: state, metric, averages, precision, trees of arrays."""
