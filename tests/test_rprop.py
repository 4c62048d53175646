"""Rprop is iRprop⁻: compared with the published sequence and with a loop in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.config.registry import resolve
from jaxtrain.optimizers import OPTIMIZERS, Optimizer

FLOATS = {"learning_rate": 0.1, "eta_minus": 0.5, "eta_plus": 1.2, "min_step_size": 1e-6, "max_step_size": 50.0}


def rprop(floats: dict[str, Any], **wrapper: Any) -> Any:
    section = {"name": "rprop"} | resolve(OPTIMIZERS.knobs("rprop"), FLOATS | wrapper, "optimizer")
    optimizer = Optimizer(OPTIMIZERS.bind(section), OPTIMIZERS.bind_common(section))
    return optimizer({f"optimizer.{name}": value for name, value in floats.items()})


def moves(optimizer: Any, gradients: Any) -> np.ndarray:
    """Returns the update for each gradient in turn; a column for each weight."""

    def step(state: Any, gradient: jax.Array) -> tuple[Any, jax.Array]:
        updates, state = optimizer.update(gradient, state)
        return state, updates

    return np.asarray(jax.lax.scan(step, optimizer.init(jnp.zeros_like(gradients[0])), gradients)[1])


def by_hand(
    weights: np.ndarray, curvatures: np.ndarray, steps: int, floats: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Minimizes the quadratic with iRprop⁻, weight by weight in float64: (weights after each step, moves)."""
    path = np.zeros((steps, len(weights)))
    rested = np.zeros_like(path)
    for i, curvature in enumerate(curvatures):
        weight, size, previous = float(weights[i]), floats["learning_rate"], 0.0
        for t in range(steps):
            gradient = curvature * weight
            if gradient * previous > 0.0:
                size = min(size * floats["eta_plus"], floats["max_step_size"])
            elif gradient * previous < 0.0:
                size = max(size * floats["eta_minus"], floats["min_step_size"])
                gradient = 0.0
            move = -size if gradient > 0.0 else size if gradient < 0.0 else 0.0
            weight += move
            previous = gradient
            path[t, i], rested[t, i] = weight, move
    return path, rested


def test_the_moves_are_those_of_the_publication():
    gradients = np.array([[1.0, -3.0], [1.0, -1e-30], [1.0, -1e-30], [-1.0, 1.0], [1.0, -2.0]], np.float32)
    expected = np.array([-0.1, -0.12, -0.144, 0.0, -0.072])
    np.testing.assert_allclose(moves(rprop(FLOATS), gradients), np.stack([expected, -expected], 1), rtol=1e-6)


def test_a_zero_gradient_keeps_the_step_size_and_no_sign_of_it():
    gradients = np.array([[1.0], [0.0], [-1.0], [-1.0]], np.float32)
    np.testing.assert_allclose(moves(rprop(FLOATS), gradients)[:, 0], [-0.1, 0.0, 0.1, 0.12], rtol=1e-6)


def test_step_sizes_stay_in_their_bounds():
    floats = FLOATS | {"min_step_size": 0.08, "max_step_size": 0.11}
    gradients = np.array([[1.0], [1.0], [-1.0], [-1.0], [1.0], [1.0]], np.float32)
    np.testing.assert_allclose(moves(rprop(floats), gradients)[:, 0], [-0.1, -0.11, 0, 0.08, 0, -0.08], rtol=1e-6)


def test_a_quadratic_is_minimized_as_by_the_loop_in_numpy_with_all_floats_traced():
    """Curvatures 1, 10 and 100, two lanes that differ in every float, 50 steps; the weights end near 0.

    Later the steps are so small that float32 gives a gradient another sign than float64.
    """
    curvatures, start = np.array([1.0, 10.0, 100.0]), np.array([1.3, -0.7, 2.1])
    other = {"learning_rate": 0.03, "eta_minus": 0.4, "eta_plus": 1.3, "min_step_size": 1e-5, "max_step_size": 0.2}
    lanes = [FLOATS, other]

    def minimize(floats: dict[str, jax.Array]) -> jax.Array:
        def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], jax.Array]:
            weights, state = carry
            updates, state = rprop(floats).update(jnp.float32(curvatures) * weights, state)
            return (weights + updates, state), weights + updates

        weights = jnp.float32(start)
        return jax.lax.scan(step, (weights, rprop(floats).init(weights)), length=50)[1]

    stacked = {name: jnp.array([lane[name] for lane in lanes], jnp.float32) for name in FLOATS}
    found = jax.jit(jax.vmap(minimize))(stacked)
    for ours, floats in zip(found, lanes, strict=True):
        path, moved = by_hand(start, curvatures, 50, floats)
        assert (moved == 0.0).any(axis=0).all()  # every weight changed its sign and rested
        np.testing.assert_allclose(ours, path, atol=2e-6)
        assert np.abs(ours[-1]).max() < 0.01


def test_the_learning_rate_is_read_once():
    assert OPTIMIZERS.knobs("rprop")["learning_rate"].once_per_run
    assert not OPTIMIZERS.knobs("sgd")["learning_rate"].once_per_run
    weights = jnp.ones(2)
    state = rprop(FLOATS).init(weights)
    updates, _ = rprop(FLOATS | {"learning_rate": 10.0}).update(weights, state)
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


@pytest.mark.parametrize("wrapper", [{"clip_norm": 1.0}, {"frozen": "b"}, {"scaled": "b", "scaled_by": 0.5}])
def test_wrappers_apply(wrapper: dict[str, Any]):
    weights = {"a": jnp.ones(2), "b": jnp.ones(2)}
    optimizer = rprop(FLOATS | {"clip_norm": 1.0, "scaled_by": 0.5}, **wrapper)
    updates, _ = optimizer.update(weights, optimizer.init(weights), weights)
    expected = {"clip_norm": -0.1, "frozen": 0.0, "scaled": -0.05}[next(iter(wrapper))]
    np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], expected, rtol=1e-6)


def test_the_variant_of_optax_stays_what_it_is():
    assert OPTIMIZERS.member("optax:rprop") is optax.rprop
