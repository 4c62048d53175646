"""Metrics of language models: logits (batch, ..., tokens) against the tokens (batch, ...) that follow."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.metric import Mean
from jaxtrain.tasks.losses.classification import cross_entropy
from jaxtrain.tasks.shapes import flatten_examples


def bits_per_byte(
    predictions: jax.Array, targets: jax.Array, mask: jax.Array, byte_lengths: jax.Array | float = 1.0
) -> Mean:
    """Cross-entropy in bits for each byte of the text, by which models with other tokens can be compared.

    -Σ log2 p[token] / Σ bytes. Tasks give `byte_lengths` (batch, ...), the bytes of each target in UTF-8. Shannon
    (1951), Bell System Technical Journal 30(1), for letters.

    >>> bits_per_byte(jnp.zeros((1, 3, 256)), jnp.array([[65, 66, 67]]), jnp.ones(1)).result()
    8.0
    """
    flat = predictions.reshape(-1, predictions.shape[-1])
    bits = cross_entropy(flat, targets.reshape(-1)).reshape(targets.shape) / math.log(2)
    lengths = jnp.broadcast_to(jnp.asarray(byte_lengths, jnp.float32), targets.shape)
    both = jnp.stack([flatten_examples(bits).sum(axis=1), flatten_examples(lengths).sum(axis=1)], axis=1)
    return Mean.of(both, mask, finish=_ratio)


def _ratio(total: Any, count: Any) -> Any:
    bits, length = np.asarray(total, np.float64)
    return bits / length
