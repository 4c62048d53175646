"""A multilayer perceptron for tables: learned embeddings of categories and learned Fourier features of numbers."""

from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.config.schema import Bounds, Count, OncePerRun, Probability, Widths
from jaxtrain.models.mlp import MLP, Activation
from jaxtrain.models.norms import Norm


class TabularMLP(nn.Module):
    """An `mlp` on numbers, flags, embeddings of categories, and sines and cosines of numbers at learned frequencies.

    `embedding` is the width of the vector of a category, and `frequencies` how many each number has, drawn at the start
    with the deviation `frequency_scale`, in periods a standard deviation of the number. An unknown category is the zero
    vector. Gorishniy et al. (2022), https://arxiv.org/abs/2203.05556, without their layer after the sines.

    >>> inputs = {"numbers": jnp.zeros((5, 3)), "flags": jnp.zeros((5, 0)), "codes": jnp.zeros((5, 2), jnp.int32)}
    >>> jax.eval_shape(TabularMLP(10, (4, 7)).init_with_output, jax.random.key(0), inputs)[0].shape
    (5, 10)
    """

    outputs: int
    category_sizes: tuple[int, ...]
    hidden: Widths = (256, 128)
    embedding: Count = 8
    frequencies: Annotated[int, Bounds(0)] = 8
    frequency_scale: Annotated[float, Bounds(0, open_low=True), OncePerRun()] = 0.3
    activation: Activation = "relu"
    norm: Norm | None = None
    dropout: Probability | None = None

    @nn.compact
    def __call__(self, inputs: Mapping[str, jax.Array], train: bool = False) -> jax.Array:
        """Returns (batch, outputs)."""
        numbers = inputs["numbers"]
        parts = [numbers, inputs["flags"]]
        if self.frequencies and numbers.shape[1]:
            parts.append(self._waves(numbers))
        if self.category_sizes:
            parts.append(self._embed(inputs["codes"]))
        features = jnp.concatenate(parts, axis=1)
        return MLP(self.outputs, self.hidden, self.activation, self.norm, self.dropout)(features, train)

    def _waves(self, numbers: jax.Array) -> jax.Array:
        """Returns sine and cosine of each number (batch, n) at its frequencies, as (batch, n * frequencies * 2)."""

        def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return self.frequency_scale * jax.random.normal(key, shape)

        frequencies: Any = self.param("frequencies", draw, (numbers.shape[1], self.frequencies))
        phases = 2.0 * np.pi * numbers[:, :, None] * frequencies[None]
        return jnp.concatenate([jnp.sin(phases), jnp.cos(phases)], axis=2).reshape(numbers.shape[0], -1)

    def _embed(self, codes: jax.Array) -> jax.Array:
        """Returns the vectors of codes (batch, columns) as (batch, columns * embedding)."""
        begins = np.cumsum([0, *self.category_sizes[:-1]])

        def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            vectors = nn.initializers.normal(self.embedding**-0.5)(key, shape)
            return vectors.at[begins].set(0.0)  # no training row has an unknown category, so its vector stays

        vectors: Any = self.param("embeddings", draw, (sum(self.category_sizes), self.embedding))
        return vectors[codes + begins[None].astype(np.int32)].reshape(codes.shape[0], -1)
