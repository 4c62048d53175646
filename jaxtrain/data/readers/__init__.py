"""Readers of data sets, a module for each form in which they are stored."""
