"""Export: a trained run as files that others read and run, without this framework where possible."""
