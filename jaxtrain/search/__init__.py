"""Hyperparameter search: samples a space, trains the trials as lanes of few compiled programs, and reports."""
