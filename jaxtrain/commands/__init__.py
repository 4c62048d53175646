"""The commands: a module for each verb, with what it does and what it prints."""
