"""FLOP counted from traces, compared with counts by hand: through steps, micro-batches, and loops inside a model."""

import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxtrain.core.flops import count_flops
from jaxtrain.core.state import Rules, init_state
from jaxtrain.core.steps import train_step
from jaxtrain.models.mlp import MLP
from jaxtrain.optimizers.schedules import Schedule
from jaxtrain.tasks.linen import linen_task
from jaxtrain.tasks.losses.classification import cross_entropy

BATCH = 64
SIZES = (64, 128, 96, 10)
LAYERS = list(itertools.pairwise(SIZES))
BATCHES = {
    "inputs": jax.ShapeDtypeStruct((BATCH, SIZES[0]), np.float32),
    "targets": jax.ShapeDtypeStruct((BATCH,), np.int32),
}
PRODUCTS = sum(2 * m * n * (2 if i == 0 else 3) for i, (m, n) in enumerate(LAYERS)) * BATCH
"""2 FLOP per weight and example: forward, gradient of weights, and gradient of inputs except in the first layer."""


class Repeated(nn.Module):
    """Four layers of 96 units, which a scan repeats with weights of their own, between two others."""

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> Any:
        layers = nn.scan(
            lambda layer, hidden, _: (nn.relu(layer(hidden)), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=4,
        )
        hidden, _ = layers(nn.Dense(96, name="repeated"), nn.Dense(96)(inputs), None)
        return nn.Dense(10)(hidden)


def rules_of(model: nn.Module, accumulate: int = 1) -> Rules:
    task = linen_task(lambda values: model, lambda values, outputs, targets: cross_entropy(outputs, targets), ())
    return Rules(task, Schedule(), lambda values: optax.sgd(0.1), accumulate)


def step_flops(rules: Rules, steps: int | None = None) -> float:
    """Counts one step, or a scan of several on the same batch."""
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), BATCHES)
    init = functools.partial(init_state, rules=rules)
    state = jax.eval_shape(init, jax.random.key(0), example, {"train.total_steps": 5.0})
    step = functools.partial(train_step, rules=rules, measure_norms=False)
    if steps is None:
        return count_flops(step, state, BATCHES)
    return count_flops(lambda state, batch: lax.scan(lambda s, _: step(s, batch), state, length=steps), state, BATCHES)


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("steps", [None, 1, 20])
def test_an_mlp_takes_its_products_and_little_else(steps: int | None, accumulate: int):
    found = step_flops(rules_of(MLP(10, SIZES[1:-1]), accumulate), steps)
    assert PRODUCTS < found / (steps or 1) < 1.05 * PRODUCTS


def test_a_loop_inside_the_model_counts_as_often_as_it_runs():
    layers = 2 * BATCH * (2 * 64 * 96 + 4 * 3 * 96 * 96 + 3 * 96 * 10)
    assert layers < step_flops(rules_of(Repeated())) < 1.05 * layers


def test_convolutions_count_each_term_of_each_output():
    image = jax.ShapeDtypeStruct((8, 28, 28, 4), np.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 2, 6), np.float32)

    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        dimensions = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=2
        )

    assert count_flops(convolve, image, kernel) == 2 * (8 * 28 * 28 * 6) * (3 * 3 * 2)


def test_the_dearest_branch_counts_and_work_on_integers_does_not():
    numbers = jax.ShapeDtypeStruct((100,), np.float32)
    branches = [lambda x: x, lambda x: x * x + 1, lambda x: x + 1]
    assert count_flops(lambda i, x: lax.switch(i, branches, x), jax.ShapeDtypeStruct((), np.int32), numbers) == 200
    assert count_flops(lambda x: x + 1, jax.ShapeDtypeStruct((100,), np.int32)) == 0
    assert count_flops(lambda x: jnp.sum(x), numbers) == 100
