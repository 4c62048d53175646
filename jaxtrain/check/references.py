"""Evaluates the loss of a config for known predictions: the truth, and a guess by chance.

They are known for tasks of the table, whose targets have a known meaning; the loss may be the user's own.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.check.context import Context
from jaxtrain.config.defaults import family

CERTAIN = 20.0
"""The logit of a certain prediction: a probability of 1 - 2e-9."""

CLASSES = ("classification", "sequence_classification", "segmentation", "language_modelling")
BINARY = ("binary_classification", "multi_label")


class References(NamedTuple):
    """Mean losses of predictions over some examples.

    truth: of certain and right ones; chance: of logits of 0, or the mean target; wrong: of certain and wrong ones;
    usual: what a usual mean loss of the task costs by chance: the logarithm of the classes, ln 2, or the variance.
    """

    truth: float
    chance: float
    wrong: float
    usual: float


def references(context: Context) -> References | None:
    """Returns the losses of known predictions, in the units of the loss; None where predictions are not known."""
    targets = np.asarray(context.batch["targets"])
    made = _predictions(context, targets)
    if made is None:
        return None
    predictions, usual = made
    loss = family("loss").bind(context.config["loss"])
    costs = [float(np.mean(np.asarray(loss(context.quiet_values, p, jnp.asarray(targets))))) for p in predictions]
    return References(*costs, usual=usual)


def costs_by_chance(context: Context, targets: np.ndarray) -> np.ndarray | None:
    """Returns the loss by chance of each of some targets, where right predictions are known."""
    made = _predictions(context, targets)
    if made is None:
        return None
    loss = family("loss").bind(context.config["loss"])
    return np.asarray(loss(context.quiet_values, made[0][1], jnp.asarray(targets)), np.float64)


def _predictions(context: Context, targets: np.ndarray) -> tuple[list[jax.Array], float] | None:
    """Returns predictions that are right, by chance and wrong, and the usual loss by chance."""
    info = context.info
    name = context.task_name
    if info.void is not None or info.box_classes is not None:
        return None
    classes = info.classes or 2
    if name in CLASSES and not (name == "segmentation" and classes <= 2):
        targets = targets.astype(np.int64)  # bytes would wrap around
        right = CERTAIN * jax.nn.one_hot(targets, classes)
        wrong = CERTAIN * jax.nn.one_hot((targets + 1) % classes, classes)
        return [right, jnp.zeros(right.shape), wrong], math.log(classes)
    if name in BINARY or name == "segmentation":
        signs = jnp.asarray(2.0 * targets - 1.0, jnp.float32)
        return [CERTAIN * signs, jnp.zeros(signs.shape), -CERTAIN * signs], math.log(2)
    if name == "regression" and info.standardised:
        truth = jnp.asarray(targets, jnp.float32)
        mean = jnp.zeros(truth.shape)
        return [truth, mean, -3.0 * truth], float(np.square(np.asarray(targets, np.float64)).mean())
    return None


def elements(context: Context) -> int:
    """Returns how many numbers a target holds: pixels of a mask, tokens of a text."""
    return int(np.prod(context.info.target_shape, dtype=np.int64))


def describe(found: Any) -> str:
    """Formats the losses of known predictions."""
    return f"{found.truth:.3g} for the truth, {found.chance:.3g} by chance, {found.wrong:.3g} for what is wrong"
