"""One run: from a resolved config to a trained and tested state."""
