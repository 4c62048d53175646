"""Outputs of an exported program, in a user's terms: probabilities and classes beside logits, masks, numbers."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data.info import DataInfo
from jaxtrain.export.two_floats import fits_one_float

Outputs = dict[str, jax.Array]


class Head(NamedTuple):
    """Joins the predictions of several members of a task, and makes the outputs of an export of them."""

    join: Callable[[jax.Array], jax.Array]
    outputs: Callable[[jax.Array], Outputs]


def head_of(task: str, info: DataInfo) -> Head:
    """Returns the head of a task by its name; predictions of a user's own task leave as they are, as "outputs"."""
    if task == "segmentation":
        return _exclusive("mask") if (info.classes or 2) > 2 else _separate("mask")
    return HEADS[task](info) if task in HEADS else Head(_mean, lambda predictions: {"outputs": predictions})


def restores_on_host(info: DataInfo) -> bool:
    """Tells whether numbers leave the program standardised, as float32 could not hold them in their own units."""
    return info.standardised and not fits_one_float(info.target_mean, info.target_std)


def _exclusive(decision: str) -> Head:
    """The head of classes of which one is true: the last axis of the predictions holds their logits."""

    def join(logits: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(jax.nn.log_softmax(logits, axis=-1), axis=0) - np.log(np.float32(len(logits)))

    def outputs(logits: jax.Array) -> Outputs:
        chosen = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return {"logits": logits, "probabilities": jax.nn.softmax(logits, axis=-1), decision: chosen}

    return Head(join, outputs)


def _next_token() -> Head:
    """The head of a language model: the logits of the next token at each position."""
    return Head(_exclusive("").join, lambda logits: {"logits": logits})


def _separate(decision: str) -> Head:
    """The head of labels each of which is true or not: it is where its logit is above 0."""

    def join(logits: jax.Array) -> jax.Array:
        is_true, is_false = (jax.nn.logsumexp(jax.nn.log_sigmoid(side), axis=0) for side in (logits, -logits))
        return is_true - is_false

    def outputs(logits: jax.Array) -> Outputs:
        return {"logits": logits, "probabilities": jax.nn.sigmoid(logits), decision: (logits > 0).astype(jnp.int32)}

    return Head(join, outputs)


def _numbers(info: DataInfo) -> Head:
    """The head of a regression: numbers in their own units, or standardised ones."""

    def outputs(predictions: jax.Array) -> Outputs:
        if not info.standardised or restores_on_host(info):
            return {"numbers": predictions}
        shape = (1, *info.target_shape)
        mean, std = (np.asarray(values, np.float32).reshape(shape) for values in (info.target_mean, info.target_std))
        return {"numbers": predictions * std + mean}

    return Head(_mean, outputs)


def _mean(predictions: jax.Array) -> jax.Array:
    return predictions.mean(axis=0)


HEADS: dict[str, Callable[[DataInfo], Head]] = {
    "classification": lambda info: _exclusive("class"),
    "sequence_classification": lambda info: _exclusive("class"),
    "label_distribution": lambda info: _exclusive("class"),
    "binary_classification": lambda info: _separate("class"),
    "multi_label": lambda info: _separate("labels"),
    "regression": _numbers,
    "language_modelling": lambda info: _next_token(),
}
"""Name of a task -> its head."""
