"""The functions that a task offers for looking at a run, and the parts that all of them share."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxtrain.core.pictures import Description, Shown


class Views(NamedTuple):
    """The functions of a task by which a run is looked at, each optional; they become fields of `Task`.

    show(inputs, targets, predictions) -> a picture of the examples, or several by name
    summarise(targets, predictions) -> pictures of a whole split by name
    wrongness(targets, predictions) -> how wrong each prediction is, (n,): orders examples from worst to best
    """

    show: Callable[[np.ndarray, np.ndarray, np.ndarray], Shown] | None = None
    summarise: Callable[[np.ndarray, np.ndarray], Mapping[str, Description]] | None = None
    wrongness: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


def picture_of(example: np.ndarray) -> np.ndarray | None:
    """Returns an input that can be drawn, (height, width, channels) of one, three or four channels; else None."""
    return example if example.ndim == 3 and example.shape[2] in (1, 3, 4) else None


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-logits)) without overflow, in float64."""
    half = 0.5 * np.asarray(logits, np.float64)
    return 0.5 * (1.0 + np.tanh(half))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities over the last axis, in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
