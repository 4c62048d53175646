"""The task that predicts the next token of a text."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import DataError, Words
from jaxtrain.tasks.linen import LossFunction, ModelFunction, linen_task
from jaxtrain.tasks.shapes import reshape_outputs


def language_modelling(
    model: ModelFunction,
    loss: LossFunction,
    info: DataInfo,
    metrics: tuple[str, ...] = ("accuracy", "perplexity", "bits_per_byte"),
) -> Task:
    """Predicts the next token: the model returns one logit per token of the vocabulary at each position.

    The loss is in nats a token. `Run.generate` continues a text with the model.
    """
    if info.vocabulary is None or info.target_shape != info.input_shape:
        hint = "Take a task that fits the targets"
        raise DataError("task.name", Words("'language_modelling' for data that are no text"), "tokens", hint)
    size = info.vocabulary.size
    byte_lengths = np.asarray(info.vocabulary.byte_lengths, np.float32)
    return linen_task(
        lambda values: model(values, size),
        loss,
        metrics,
        shaped=lambda outputs: reshape_outputs(outputs, (*info.target_shape, size), model),
        known={"byte_lengths": lambda targets: jnp.asarray(byte_lengths)[targets]},
    )
