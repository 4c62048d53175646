"""How examples and whole splits of the tasks are looked at: pure functions on the host, from arrays to descriptions.

They get inputs and targets as they lie in the data, and predictions as `Run.predict` returns them.
"""
