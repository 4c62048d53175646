"""Training of one run, from a resolved config to a tested state."""
