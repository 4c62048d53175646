"""Descriptions of examples and of whole splits of the tasks: pure functions of arrays, called on the host.

They get raw inputs and targets of the data, and predictions as `Run.predict` returns them.
"""
