"""The task that predicts the next token of a text."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.registry import Values
from jaxtrain.core.precision import InBfloat16, InFloat64
from jaxtrain.core.state import Task
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import ConfigError, DataError, Words
from jaxtrain.tasks.linen import LossFunction, ModelFunction, linen_task
from jaxtrain.tasks.shapes import name_of, reshape_outputs


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

    def decode(
        params: Any, model_state: Any, tokens: jax.Array, values: Values, cache: Any, position: jax.Array | int
    ) -> Any:
        module = model(values, size)
        if not hasattr(module.module if isinstance(module, InBfloat16 | InFloat64) else module, "decode"):
            raise ConfigError("model.name", name_of(model), "a model with a method decode, such as transformer")
        return module.apply({"params": params, **model_state}, tokens, cache, position, method="decode")

    task = linen_task(
        lambda values: model(values, size),
        loss,
        metrics,
        shaped=lambda outputs: reshape_outputs(outputs, (*info.target_shape, size), model),
        known={"byte_lengths": lambda targets: jnp.asarray(byte_lengths)[targets]},
    )
    return task._replace(decode=decode)
