from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.losses import LOSSES, cross_entropy, dice, mse

RANDOM = np.random.default_rng(0)
PREDICTIONS: Any = RANDOM.normal(size=(6, 4)).astype(np.float32)
LABELS: Any = RANDOM.integers(0, 4, 6).astype(np.int32)
MASKS = RANDOM.integers(0, 2, (6, 4)).astype(np.float32)
NUMBERS = RANDOM.normal(size=(6, 4)).astype(np.float32)
TARGETS = {"cross_entropy": LABELS, "dice": MASKS}
"""What each loss is given beside `PREDICTIONS`; one that is not named here takes `NUMBERS`."""


@pytest.mark.parametrize("name", LOSSES.members)
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30], ids=["usual", "large", "huge"])
def test_every_loss_is_a_finite_float32_per_example_with_finite_gradients(name, scale):
    loss, targets = LOSSES.members[name], TARGETS.get(name, NUMBERS)
    predictions = PREDICTIONS * (min(scale, 1e15) if loss is mse else scale)  # squares have a range of their own
    values, pullback = jax.vjp(lambda predictions: loss(predictions, targets), predictions)
    assert (values.shape, values.dtype) == ((6,), jnp.float32)
    assert np.isfinite(values).all()
    (gradients,) = pullback(jnp.ones(6))
    assert gradients.shape == predictions.shape
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("name", LOSSES.members)
def test_every_loss_of_an_example_depends_on_that_example_alone(name):
    loss, targets = LOSSES.members[name], TARGETS.get(name, NUMBERS)
    together = loss(PREDICTIONS, targets)
    alone = [loss(PREDICTIONS[i : i + 1], targets[i : i + 1])[0] for i in range(6)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    spoilt = np.array(PREDICTIONS)
    spoilt[0] = np.nan
    np.testing.assert_array_equal(loss(spoilt, targets)[1:], together[1:])


@pytest.mark.parametrize("name", LOSSES.members)
def test_every_loss_computes_in_float32_whatever_the_model_gives(name):
    loss, targets = LOSSES.members[name], TARGETS.get(name, NUMBERS)
    half = jnp.asarray(PREDICTIONS, jnp.bfloat16)
    assert loss(half, targets).dtype == jnp.float32
    np.testing.assert_allclose(loss(half, targets), loss(half.astype(jnp.float32), targets), rtol=1e-6)


WITH_FLOATS = [
    name for name in LOSSES.members if any(knob.is_traced(knob.default) for knob in LOSSES.knobs(name).values())
]


@pytest.mark.parametrize("name", WITH_FLOATS)
def test_every_float_of_every_loss_may_be_traced(name):
    loss, targets = LOSSES.members[name], TARGETS.get(name, NUMBERS)
    floats = {knob: found.default for knob, found in LOSSES.knobs(name).items() if found.is_traced(found.default)}
    lanes = {knob: jnp.array([value, value + 0.25], jnp.float32) for knob, value in floats.items()}
    traced = jax.jit(jax.vmap(lambda floats: loss(PREDICTIONS, targets, **floats)))(lanes)
    for lane in (0, 1):
        given = {knob: float(values[lane]) for knob, values in lanes.items()}
        np.testing.assert_allclose(traced[lane], loss(PREDICTIONS, targets, **given), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_that_of_optax_with_smoothed_labels(smoothing):
    smoothed = optax.smooth_labels(jax.nn.one_hot(LABELS, 4), smoothing)
    expected = optax.softmax_cross_entropy(PREDICTIONS, smoothed)
    np.testing.assert_allclose(cross_entropy(PREDICTIONS, LABELS, smoothing), expected, rtol=1e-5)


def test_cross_entropy_of_a_sure_and_wrong_prediction_is_the_gap_of_the_logits():
    logits = jnp.array([[1e4, 0.0], [0.0, 1e4]])
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([1, 1])), [1e4, 0.0])


def test_mse_averages_all_but_the_batch_axis():
    predictions, targets = RANDOM.normal(size=(2, 5, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(mse(predictions, targets), ((predictions - targets) ** 2).mean(axis=(1, 2)), rtol=1e-5)
    scalars = mse(predictions[:, 0, 0], targets[:, 0, 0])
    np.testing.assert_allclose(scalars, optax.squared_error(predictions[:, 0, 0], targets[:, 0, 0]), rtol=1e-6)


def test_dice_is_the_published_ratio_of_probabilities():
    logits = RANDOM.normal(size=(3, 4, 5)).astype(np.float32)
    truth = RANDOM.integers(0, 2, (3, 4, 5))
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    ratio = (2 * (p * truth).sum(axis=(1, 2)) + 0.5) / (p.sum(axis=(1, 2)) + truth.sum(axis=(1, 2)) + 0.5)
    np.testing.assert_allclose(dice(jnp.asarray(logits), jnp.asarray(truth), smooth=0.5), 1 - ratio, rtol=1e-5)


def test_dice_of_empty_masks_is_0_where_nothing_is_predicted_and_near_1_where_all_is():
    empty = jnp.zeros((2, 100))
    logits = jnp.stack([jnp.full(100, -50.0), jnp.full(100, 50.0)])
    np.testing.assert_allclose(dice(logits, empty), [0.0, 1 - 1 / 101], atol=1e-6)
    gradients = jax.grad(lambda logits: dice(logits, empty).sum())(jnp.zeros((2, 100)))
    assert np.isfinite(gradients).all()
    assert (gradients > 0).all()
