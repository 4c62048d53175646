"""Splits as normalised float32, for hand-written programs that do not normalise raw bytes themselves."""

from typing import Any

import jax
import numpy as np

from jaxtrain.parallel.mesh import replicate
from jaxtrain.training.experiment import Experiment


def float_split(experiment: Experiment, split: str) -> dict[str, jax.Array]:
    """Returns {"inputs": float32 (n, ...), "targets": (n, ...)} of a split, on the devices."""
    return replicate(host_float_split(experiment, split), experiment.mesh)


def host_float_split(experiment: Experiment, split: str) -> dict[str, Any]:
    """Returns the same arrays on the host."""
    inputs, targets = (experiment.dataset.split(split)[name] for name in ("inputs", "targets"))
    is_float = np.issubdtype(inputs.dtype, np.floating)
    return {"inputs": inputs if is_float else experiment.dataset.info.normalise(inputs), "targets": targets}
