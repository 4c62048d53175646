"""The commands: one module per verb, which runs it and formats what it prints."""
