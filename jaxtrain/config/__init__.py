"""The config of a run: its schema, the files and flags that set it, and the resolved values."""
