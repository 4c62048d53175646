import doctest
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.utils.class_weight import compute_class_weight

from jaxtrain.errors import ConfigError
from jaxtrain.tasks.losses import LOSSES
from jaxtrain.tasks.losses.classification import class_weights, cross_entropy
from jaxtrain.tasks.losses.overlap import dice
from jaxtrain.tasks.losses.regression import mse

RANDOM = np.random.default_rng(0)
PREDICTIONS: Any = RANDOM.normal(size=(6, 4)).astype(np.float32)
PIXELS: Any = RANDOM.normal(size=(6, 3, 2, 4)).astype(np.float32)
LABELS: Any = RANDOM.integers(0, 4, 6).astype(np.int32)
REGIONS: Any = RANDOM.integers(0, 4, (6, 3, 2)).astype(np.int32)
MASKS: Any = RANDOM.integers(0, 2, (6, 4)).astype(np.float32)
NUMBERS: Any = RANDOM.normal(size=(6, 4)).astype(np.float32)
SHARES: Any = RANDOM.dirichlet(np.full(4, 0.5), 6).astype(np.float32)

CELLS: Any = RANDOM.normal(size=(6, 3, 2, 6)).astype(np.float32)
BOXES: Any = np.concatenate([RANDOM.integers(-1, 2, (6, 3, 1)), RANDOM.uniform(0.1, 0.5, (6, 3, 4))], axis=2).astype(
    np.float32
)

OF_LABELS = ("cross_entropy", "focal")
OF_MASKS = ("binary_cross_entropy", "binary_focal", "dice", "iou", "tversky", "dice_cross_entropy")
OVERLAPS = ("dice", "iou", "tversky", "dice_cross_entropy")
CASES = [
    *((name, PREDICTIONS, LABELS) for name in OF_LABELS),
    *((name, PREDICTIONS, MASKS) for name in OF_MASKS),
    *((name, PIXELS, REGIONS) for name in (*OF_LABELS, *OVERLAPS)),
    ("kl_divergence", PREDICTIONS, SHARES),
    *((name, PREDICTIONS, NUMBERS) for name in ("mse", "mae", "huber", "log_cosh")),
    ("focal_giou", CELLS, BOXES),
]
PARAMETERS = [pytest.param(*case, id=f"{case[0]}-{case[2].dtype}-{case[2].ndim}") for case in CASES]
over_all = pytest.mark.parametrize(("name", "predictions", "targets"), PARAMETERS)


def test_every_loss_has_a_case_here():
    assert {name for name, _, _ in CASES} == set(LOSSES.members)


@pytest.mark.one_fast_of(4)
@pytest.mark.parametrize("name", LOSSES.members)
def test_the_example_of_every_loss_runs_and_its_source_is_named(name):
    member = LOSSES.members[name]
    (example,) = doctest.DocTestFinder(recurse=False).find(
        member, globs=vars(importlib.import_module(member.__module__)) | {"jnp": jnp}
    )
    assert example.examples, f"{name} has no example"
    assert doctest.DocTestRunner().run(example).failed == 0
    assert any(mark in str(member.__doc__) for mark in ("(1", "(2", "optax."))


@pytest.mark.one_fast_of(4)
@over_all
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30], ids=["usual", "large", "huge"])
def test_every_loss_is_a_finite_float32_per_example_with_finite_gradients(name, predictions, targets, scale):
    loss = LOSSES.members[name]
    predictions = predictions * (min(scale, 1e15) if loss is mse else scale)  # squares have another range

    @jax.jit
    def value_and_gradients(predictions):
        values, pullback = jax.vjp(lambda predictions: loss(predictions, targets), predictions)
        return values, pullback(jnp.ones(6))[0]

    values, gradients = value_and_gradients(predictions)
    assert (values.shape, values.dtype) == ((6,), jnp.float32)
    assert np.isfinite(values).all()
    assert (values >= -1e-6).all()
    assert gradients.shape == predictions.shape
    assert np.isfinite(gradients).all()


@pytest.mark.one_fast_of(4)
@over_all
def test_every_loss_of_an_example_depends_on_that_example_alone(name, predictions, targets):
    loss = LOSSES.members[name]
    together = loss(predictions, targets)
    alone = [loss(predictions[i : i + 1], targets[i : i + 1])[0] for i in range(6)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    spoilt = np.array(predictions)
    spoilt[0] = np.nan
    np.testing.assert_array_equal(loss(spoilt, targets)[1:], together[1:])


@over_all
def test_every_loss_computes_in_float32_whatever_the_model_gives(name, predictions, targets):
    loss, half = LOSSES.members[name], jnp.asarray(predictions, jnp.bfloat16)
    assert loss(half, targets).dtype == jnp.float32
    np.testing.assert_allclose(loss(half, targets), loss(half.astype(jnp.float32), targets), rtol=1e-6)


@pytest.mark.one_fast_of(4)
@over_all
def test_every_loss_falls_along_its_gradient(name, predictions, targets):
    loss = LOSSES.members[name]
    gradients = jax.grad(lambda predictions: loss(predictions, targets).sum())(predictions)
    assert (loss(predictions - 0.01 * gradients, targets) < loss(predictions, targets)).all()


@over_all
def test_every_float_of_every_loss_may_be_traced(name, predictions, targets):
    loss, knobs = LOSSES.members[name], LOSSES.knobs(name)
    floats = {knob: found.default for knob, found in knobs.items() if found.is_traced(found.default)}
    lanes = {knob: jnp.array([value, value + 0.25], jnp.float32) for knob, value in floats.items()}
    lanes |= {"": jnp.zeros(2)}  # an unused float gives lanes to losses without floats
    traced = jax.jit(jax.vmap(lambda lane: loss(predictions, targets, **{knob: lane[knob] for knob in floats})))(lanes)
    for lane in (0, 1):
        given = {knob: float(lanes[knob][lane]) for knob in floats}
        np.testing.assert_allclose(traced[lane], loss(predictions, targets, **given), rtol=1e-5, atol=1e-7)


@over_all
def test_every_loss_refuses_targets_of_another_shape(name, predictions, targets):
    for wrong in (targets[..., None, None], targets[:5]):
        with pytest.raises(
            ConfigError,
            match=r"loss\.name: got predictions of shape .* and targets of shape .*; expected .* for this loss",
        ):
            LOSSES.members[name](predictions, wrong)


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
    logits = jnp.repeat(jnp.array([[-50.0], [50.0]]), 100, axis=1)
    np.testing.assert_allclose(dice(logits, empty), [0.0, 1 - 1 / 101], atol=1e-6)
    gradients = jax.jit(jax.grad(lambda logits: dice(logits, empty).sum()))(empty)
    assert np.isfinite(gradients).all()
    assert (gradients > 0).all()


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize(("gamma", "alpha"), [(0.0, 0.5), (2.0, 0.25), (0.5, 0.9)])
def test_binary_losses_are_the_published_formulas(gamma, alpha):
    p = np.where(MASKS > 0, sigmoid(PREDICTIONS), 1 - sigmoid(PREDICTIONS))
    entropy = LOSSES.members["binary_cross_entropy"](PREDICTIONS, MASKS)
    np.testing.assert_allclose(entropy, -np.log(p).mean(axis=1), rtol=1e-5)
    weighted = -np.where(MASKS > 0, alpha, 1 - alpha) * (1 - p) ** gamma * np.log(p)
    found = LOSSES.members["binary_focal"](PREDICTIONS, MASKS, gamma=gamma, alpha=alpha)
    np.testing.assert_allclose(found, weighted.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_the_published_formula_and_that_of_two_classes_the_binary_one(gamma):
    focal, binary = LOSSES.members["focal"], LOSSES.members["binary_focal"]
    p = np.take_along_axis(np.asarray(jax.nn.softmax(PIXELS), np.float64), REGIONS[..., None], axis=-1)[..., 0]
    expected = -((1 - p) ** gamma * np.log(p)).mean(axis=(1, 2))
    np.testing.assert_allclose(focal(PIXELS, REGIONS, gamma), expected, rtol=1e-5)
    two = np.stack([np.zeros_like(PREDICTIONS), PREDICTIONS], axis=-1)
    halves = 2 * binary(PREDICTIONS, MASKS, gamma=gamma, alpha=0.5)
    np.testing.assert_allclose(focal(two, MASKS.astype(np.int32), gamma), halves, rtol=1e-5)
    np.testing.assert_allclose(focal(PIXELS, REGIONS, 0.0), cross_entropy(PIXELS, REGIONS), rtol=1e-5)


@pytest.mark.parametrize("name", ["focal", "binary_focal"])
def test_focal_has_finite_gradients_where_a_probability_rounds_to_1_and_gamma_is_below_1(name):
    logits, targets = {"focal": ([[60.0, 0.0]], [0]), "binary_focal": ([60.0], [1])}[name]
    loss = LOSSES.members[name]
    for gamma in (0.0, 0.1, 0.5):
        gradients = jax.grad(lambda z, g: loss(z, jnp.array(targets), g).sum(), (0, 1))(jnp.array(logits), gamma)
        assert all(np.isfinite(each).all() for each in gradients)


def test_kl_divergence_is_cross_entropy_above_the_entropy_of_the_targets():
    shares = SHARES.astype(np.float64)
    soft = -(shares * np.asarray(jax.nn.log_softmax(PREDICTIONS), np.float64)).sum(axis=1)
    entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
    found = LOSSES.members["kl_divergence"](PREDICTIONS, SHARES)
    np.testing.assert_allclose(found, soft - entropy, rtol=1e-4)
    sure = LOSSES.members["kl_divergence"](PREDICTIONS, jax.nn.one_hot(LABELS, 4))
    np.testing.assert_allclose(sure, cross_entropy(PREDICTIONS, LABELS), rtol=1e-5)


def test_losses_of_numbers_are_their_formulas():
    error = PREDICTIONS.astype(np.float64) - NUMBERS
    far = np.abs(error)
    expected = {
        "mae": far,
        "huber": np.where(far <= 1, error**2 / 2, far - 0.5),
        "log_cosh": np.log(np.cosh(error)),
    }
    for name, formula in expected.items():
        np.testing.assert_allclose(LOSSES.members[name](PREDICTIONS, NUMBERS), formula.mean(axis=1), rtol=1e-5)
    slope = LOSSES.members["huber"](jnp.array([[7.0], [0.1]]), jnp.zeros((2, 1)), 2.0)
    np.testing.assert_allclose(slope, [2 * (7 - 1), 0.005], rtol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_dice_of_classes_is_that_of_their_masks_and_of_optax_where_optax_has_it(squared):
    masks = jax.nn.one_hot(REGIONS, 4)
    p = np.asarray(jax.nn.softmax(PIXELS), np.float64)
    overlap, size = (p * masks).sum(axis=(1, 2)), (p**2 if squared else p).sum(axis=(1, 2)) + masks.sum(axis=(1, 2))
    expected = 1 - ((2 * overlap + 0.5) / (size + 0.5)).mean(axis=1)
    np.testing.assert_allclose(dice(PIXELS, REGIONS, 0.5, squared), expected, rtol=1e-5)
    if not squared:
        theirs = [
            optax.losses.dice_loss(PIXELS[i : i + 1], masks[i : i + 1], smooth=0.25, ignore_background=False)
            for i in range(6)
        ]
        np.testing.assert_allclose(dice(PIXELS, REGIONS, 0.5), np.ravel(theirs), rtol=1e-5)


@pytest.mark.parametrize(("predictions", "targets"), [(PREDICTIONS, MASKS), (PIXELS, REGIONS)])
def test_tversky_is_dice_and_intersection_over_union_at_its_ends(predictions, targets):
    tversky, iou = LOSSES.members["tversky"], LOSSES.members["iou"]
    np.testing.assert_allclose(tversky(predictions, targets, 0.5, 0.5, 0.5), dice(predictions, targets), rtol=1e-5)
    np.testing.assert_allclose(tversky(predictions, targets, 1.0, 1.0), iou(predictions, targets), rtol=1e-5)


def test_iou_and_tversky_are_the_published_ratios_of_probabilities():
    p = sigmoid(PREDICTIONS)
    hits, false, missed = ((a * b).sum(axis=1) for a, b in ((p, MASKS), (p, 1 - MASKS), (1 - p, MASKS)))
    union = p.sum(axis=1) + MASKS.sum(axis=1) - hits
    np.testing.assert_allclose(
        LOSSES.members["iou"](PREDICTIONS, MASKS, 0.5), 1 - (hits + 0.5) / (union + 0.5), rtol=1e-5
    )
    expected = 1 - (hits + 0.5) / (hits + 0.2 * false + 0.9 * missed + 0.5)
    np.testing.assert_allclose(LOSSES.members["tversky"](PREDICTIONS, MASKS, 0.2, 0.9, 0.5), expected, rtol=1e-5)


@pytest.mark.parametrize("name", OVERLAPS[:3])
def test_empty_masks_follow_the_stated_rule(name):
    loss, empty = LOSSES.members[name], np.zeros((2, 1000), np.float32)
    logits = np.repeat(np.array([[-50.0], [50.0]], np.float32), 1000, axis=1)
    none, everything = loss(logits, empty)
    assert none == pytest.approx(0.0, abs=1e-6)
    assert everything > 0.99
    np.testing.assert_allclose(
        loss(np.repeat(np.array([[-50.0], [-1e9]], np.float32), 1000, axis=1), empty, smooth=0.0), [1, 0]
    )
    absent = loss(jnp.array([[[50.0, 0.0, -50.0], [0.0, 50.0, -50.0]]]), jnp.array([[0, 1]]))
    assert absent[0] == pytest.approx(0.0, abs=1e-6), "a class that is neither there nor predicted costs nothing"


def test_dice_cross_entropy_is_the_sum_of_its_parts():
    both, entropy = LOSSES.members["dice_cross_entropy"], LOSSES.members["binary_cross_entropy"]
    expected = entropy(PREDICTIONS, MASKS) + 0.3 * dice(PREDICTIONS, MASKS, 0.5, True)
    np.testing.assert_allclose(both(PREDICTIONS, MASKS, 0.3, 0.5, True), expected, rtol=1e-6)
    np.testing.assert_allclose(both(PIXELS, REGIONS), cross_entropy(PIXELS, REGIONS) + dice(PIXELS, REGIONS), rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.99999, 1.0])
def test_class_weights_are_by_the_effective_number_with_mean_1_over_the_examples(beta):
    counts = np.array([500, 30, 1])
    effective = np.array([sum(beta**i for i in range(n)) for n in counts])
    expected = 1 / effective * counts.sum() / (counts / effective).sum()
    found = jax.jit(class_weights)(counts, jnp.float32(beta))
    np.testing.assert_allclose(found, expected, rtol=2e-3)  # float32 rounds a beta so near 1
    assert (np.asarray(found) * counts).sum() / counts.sum() == pytest.approx(1.0)


def test_class_weights_at_beta_1_are_the_balanced_ones_of_scikit_learn_and_survive_a_class_without_examples():
    labels = np.repeat([0, 1, 2], [50, 30, 1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(jnp.array([50, 30, 1]), 1.0), expected, rtol=1e-6)
    assert np.isfinite(class_weights(jnp.array([5, 0]), 0.9)).all()
