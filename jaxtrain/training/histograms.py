"""Histograms of parameters, of how far they moved, and of gradients, from samples of their numbers."""

from typing import Any

import jax
import numpy as np

from jaxtrain.core.trees import named_leaves, sample_distance
from jaxtrain.trackers.base import Histogram

BINS = 32
MOST_NUMBERS = 10_000
"""Numbers of an array that are counted, evenly spaced."""

Samples = dict[str, np.ndarray]
"""Path of an array -> at most about MOST_NUMBERS of its numbers."""


class Sampler:
    """Samples what changes in training, at intervals; it remembers the parameters of the time before."""

    def __init__(self) -> None:
        """Remembers none yet."""
        self._before: Samples = {}

    def begin(self, params: Any) -> None:
        """Remembers parameters that are not shown."""
        self._before = sample_leaves(params)

    def sample(self, params: Any, gradients: np.ndarray | None) -> dict[str, Samples]:
        """Returns samples by group: the parameters, their changes since the time before, and gradients.

        `gradients` are those of the step that led here, as `core/measures.py:sample_gradients` returns them, if any.
        """
        before = self._before
        self.begin(params)
        now = self._before
        moved = {path: own - before[path] for path, own in now.items() if path in before}
        of_gradients = {} if gradients is None else _without_padding(gradients, params)
        return {"parameters": now, "changes of parameters": moved, "gradients": of_gradients}


def _without_padding(samples: np.ndarray, params: Any) -> Samples:
    """Returns the numbers of each array in samples (arrays, most), whose rows have zeros behind them."""
    sizes = {path: leaf.size for path, leaf in named_leaves(params)}
    most = samples.shape[1]
    rows = zip(sizes.items(), samples, strict=True)
    return {path: row[: -(-size // sample_distance(size, most))] for (path, size), row in rows}


def sample_leaves(tree: Any) -> Samples:
    """Copies samples of all arrays of floats to the host; those of a larger array are taken on its device."""
    samples = {path: _sample(leaf) for path, leaf in named_leaves(tree)}
    return {path: np.array(sample, np.float32) for path, sample in jax.device_get(samples).items()}


def _sample(leaf: Any) -> Any:
    flat = np.asarray(leaf).reshape(-1) if leaf.nbytes <= HOST_BYTES else leaf.reshape(-1)
    return flat[:: sample_distance(leaf.size, MOST_NUMBERS)]


HOST_BYTES = 2**22
"""Bytes up to which an array is copied whole: on the device, each shape needs a program of its own."""


def count_numbers(sample: np.ndarray) -> Histogram | None:
    """Returns the histogram of the finite numbers of a sample; None without any."""
    finite = sample[np.isfinite(sample)].astype(np.float64)
    if not finite.size:
        return None
    low = float(finite.min())
    high = float(finite.max())
    if low == high:  # numbers that are all equal get a bin around them
        low -= 0.5 * max(abs(low), 1e-6)
        high += 0.5 * max(abs(high), 1e-6)
    counts, _ = np.histogram(finite, BINS, (low, high))
    return Histogram(low, high, tuple(counts.tolist()), float(finite.sum()), float(np.square(finite).sum()))
