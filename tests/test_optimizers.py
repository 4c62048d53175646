import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.families import resolve
from jaxtrain.optimizers import OPTIMIZERS, Optimizer, is_decayed

STEPS = 50
PARAMS = {
    "dense": {"kernel": jnp.array([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.5]]), "bias": jnp.array([0.2, -0.4])},
    "norm": {"scale": jnp.array([1.0, 1.2])},
}
INPUTS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
TARGETS = np.random.default_rng(1).normal(size=(16, 2)).astype(np.float32)
DECAYED = {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}

RATES = {"learning_rate": 0.1}
CASES = {
    "sgd": ("sgd", RATES | {"momentum": None}, lambda learning_rate: optax.sgd(learning_rate)),
    "momentum": ("sgd", RATES | {"momentum": 0.9}, optax.sgd),
    "nesterov": ("sgd", RATES | {"momentum": 0.8, "nesterov": True}, functools.partial(optax.sgd, nesterov=True)),
    "sgd_decay": (
        "sgd",
        RATES | {"momentum": 0.9, "weight_decay": 0.1},
        lambda learning_rate, momentum, weight_decay: optax.chain(
            optax.add_decayed_weights(weight_decay, mask=DECAYED), optax.sgd(learning_rate, momentum)
        ),
    ),
    "adam": ("adam", {"learning_rate": 0.02, "b1": 0.8, "b2": 0.99, "eps": 1e-6}, optax.adam),
    "adamw": (
        "adamw",
        {"learning_rate": 0.02, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.1},
        functools.partial(optax.adamw, mask=DECAYED),
    ),
    "rprop": (
        "rprop",
        {"learning_rate": 0.01, "eta_minus": 0.5, "eta_plus": 1.2, "min_step_size": 1e-6, "max_step_size": 1.0},
        lambda learning_rate, eta_minus, eta_plus, min_step_size, max_step_size: optax.rprop(
            learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
        ),
    ),
    "clip": (
        "sgd",
        RATES | {"momentum": 0.9, "clip_norm": 0.1},
        lambda learning_rate, momentum, clip_norm: optax.chain(
            optax.clip_by_global_norm(clip_norm), optax.sgd(learning_rate, momentum)
        ),
    ),
    "lion": ("optax:lion", {"learning_rate": 0.02, "b1": 0.9, "b2": 0.95, "weight_decay": 0.01}, optax.lion),
    "radam": ("optax:radam", {"learning_rate": 0.05, "b1": 0.8, "b2": 0.99, "threshold": 5.0}, optax.radam),
    "adafactor": ("optax:adafactor", {"learning_rate": 0.05, "decay_rate": 0.7}, optax.adafactor),
    "muon": ("optax:contrib.muon", {"learning_rate": 0.05, "beta": 0.9, "adam_b1": 0.8}, optax.contrib.muon),
}


def test_every_member_of_the_table_is_compared_here():
    assert set(OPTIMIZERS.members) <= {name for name, _, _ in CASES.values()}


def bound(section):
    return Optimizer(OPTIMIZERS.bind(section), OPTIMIZERS.bind_common(section))


def resolved(name, given):
    return {"name": name} | resolve(OPTIMIZERS.knobs(name), given, "optimizer")


def floats_of(section):
    return {f"optimizer.{name}": value for name, value in section.items() if isinstance(value, float)}


def loss(params):
    outputs = (
        jnp.tanh(INPUTS @ params["dense"]["kernel"] + params["dense"]["bias"][None]) * params["norm"]["scale"][None]
    )
    return jnp.square(outputs - TARGETS).mean()


def update(optimizer, gradients, state, params=PARAMS) -> Any:
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        return optimizer.update(gradients, state, params)


def trajectory(optimizer, initial=PARAMS, steps=STEPS):
    """Returns the parameters after each step; `optimizer` is made anew for each, as a training step does."""

    def step(carry, _):
        params, state = carry
        updates, state = update(optimizer(), jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (initial, optimizer().init(initial)), length=steps)[1]


@pytest.mark.parametrize("case", CASES)
def test_every_optimizer_is_that_of_optax_with_all_its_floats_traced_under_vmap(case):
    """Two lanes with other values in every float, each against optax with Python numbers, over 50 steps within 2e-5.

    Betas that are float32 and not Python's float64 round otherwise, which Muon's iteration magnifies: 20 steps, 1e-3.
    """
    name, given, plain = CASES[case]
    section = resolved(name, given)
    lanes = {key: jnp.array([value, 0.9 * value], jnp.float32) for key, value in floats_of(section).items()}
    traced = jax.jit(jax.vmap(lambda values: trajectory(lambda: bound(section)(values))))(lanes)
    steps, tolerance = (20, 1e-3) if case == "muon" else (STEPS, 2e-5)
    for lane, part in enumerate((1.0, 0.9)):
        knobs = {key.removeprefix("optimizer."): part * value for key, value in floats_of(section).items()}
        expected = jax.jit(lambda knobs=knobs: trajectory(lambda: plain(**knobs)))()
        for ours, theirs in zip(jax.tree.leaves(traced), jax.tree.leaves(expected), strict=True):
            assert np.isfinite(ours).all()
            np.testing.assert_allclose(ours[lane, :steps], theirs[:steps], atol=tolerance)


@pytest.mark.parametrize("case", ["adamw", "sgd_decay"])
def test_weight_decay_spares_biases_and_norms(case):
    name, given, _ = CASES[case]
    section = resolved(name, given)
    optimizer = bound(section)(floats_of(section))
    updates, _ = update(optimizer, jax.tree.map(jnp.zeros_like, PARAMS), optimizer.init(PARAMS))
    np.testing.assert_allclose(
        updates["dense"]["kernel"], -PARAMS["dense"]["kernel"] * given["learning_rate"] * 0.1, rtol=1e-5
    )
    assert not updates["dense"]["bias"].any()
    assert not updates["norm"]["scale"].any()
    assert is_decayed(PARAMS) == DECAYED


def test_clipping_bounds_the_norm_of_what_any_optimizer_sees_and_spares_small_gradients():
    section = resolved("sgd", {"learning_rate": 1.0, "momentum": None, "clip_norm": 2.0})
    optimizer = bound(section)({"optimizer.learning_rate": 1.0, "optimizer.clip_norm": jnp.float32(2.0)})
    for gradient, expected in ((30.0, 2.0), (0.5, 0.5)):
        gradients = {"a": jnp.array([gradient, 0.0]), "b": jnp.zeros(1)}
        updates, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
        assert optax.tree.norm(updates) == pytest.approx(expected)


def test_rprop_reads_its_rate_at_initialisation_alone_and_says_so():
    assert OPTIMIZERS.knobs("rprop")["learning_rate"].at_initialisation
    assert not OPTIMIZERS.knobs("sgd")["learning_rate"].at_initialisation
    section = resolved("rprop", {"learning_rate": 0.01})
    values = floats_of(section)
    later = values | {"optimizer.learning_rate": 10.0}
    initial, gradients = bound(section)(values).init(PARAMS), jax.grad(loss)(PARAMS)
    as_it_began, as_it_became = (update(bound(section)(given), gradients, initial) for given in (values, later))
    jax.tree.map(np.testing.assert_array_equal, as_it_began, as_it_became)
    updates, _ = update(bound(section)(values), gradients, as_it_began[1])
    assert abs(updates["dense"]["bias"][0]) == pytest.approx(0.01)


def test_optimizers_that_differ_in_floats_alone_are_equal_and_hash_alike():
    one, other = (bound(resolved("adamw", {"learning_rate": rate})) for rate in (0.1, 0.2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != bound(resolved("adamw", {"learning_rate": 0.1, "clip_norm": 1.0}))
    assert one != bound(resolved("adam", {"learning_rate": 0.1}))
