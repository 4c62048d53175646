"""A recorded run, looked at again: any of its steps is recomputed and measured, and two runs are compared by theirs."""
