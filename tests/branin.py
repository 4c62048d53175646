"""Branin's function as a task: its minimum is known, and a trial costs next to nothing.

Lowest value 0.397887, at three places. Branin (1972), IBM Journal of Research and Development 16(5).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtrain import Mean, Task

SPACE = {"task": {"x": ("uniform", -5.0, 10.0), "y": ("uniform", 0.0, 15.0)}}


def branin(x, y):
    """Works on numbers of Python, NumPy and JAX."""
    b, c, r, t = 5.1 / (4 * np.pi**2), 5 / np.pi, 6.0, 1 / (8 * np.pi)
    return (y - b * x**2 + c * x - r) ** 2 + 10.0 * (1 - t) * jnp.cos(x) + 10.0


def task(model: Any, loss: Any, info: Any, x: float = 9.0, y: float = 14.0) -> Task:
    """A task that measures Branin at its own knobs, whatever the data and the weights."""

    def init(key: Any, batch: Any, values: Any) -> Any:
        return {"weight": jnp.zeros(())}, {}

    def value(params: Any, model_state: Any, batch: Any, key: Any, values: Any, train: bool) -> Any:
        found = branin(values["task.x"], values["task.y"]) + 0.0 * params["weight"]
        return found, (model_state, {"loss": Mean(found, jnp.ones(()))})

    def predict(params: Any, model_state: Any, inputs: Any, values: Any) -> Any:
        return inputs

    return Task(init, value, predict)
