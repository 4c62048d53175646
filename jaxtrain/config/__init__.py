"""The config of a run: what files and flags may say, and the resolved values that they give."""
