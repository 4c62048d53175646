"""Prediction from files to a file: examples are read in pieces, predicted by a run or an export, and written."""
