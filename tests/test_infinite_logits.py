"""Infinite logits that are certain and right: every loss and metric is that of the other classes alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_metrics

from jaxtrain.data.info import describe
from jaxtrain.tasks.losses import LOSSES
from jaxtrain.tasks.metrics import METRICS
from jaxtrain.tasks.metrics.on_host import HOST_METRICS
from jaxtrain.tasks.show.classes import views_of_classes
from jaxtrain.tasks.show.labels import views_of_labels

CLASSES = 5
ROWS = 12
SEEDS = range(6)
NUMBERS = {"mse", "mae", "huber", "log_cosh", "rmse", "r2"}
NUMBERS |= {"focal_giou", "mean_average_precision", "mean_average_precision_50"}
"""Losses and metrics of real numbers and of boxes, whose predictions are no logits alone."""


def draw(seed, kind):
    """Returns (logits, targets) with infinities: -inf for some classes, or +-inf where a binary target agrees."""
    random = np.random.default_rng(seed)
    pixels = (3,) if kind in ("pixels", "masks") else ()
    if kind in ("binary", "masks"):
        targets = random.integers(0, 2, (ROWS, *pixels))
        logits = 3 * random.normal(size=targets.shape)
        certain = random.random(targets.shape) < 0.4
        return np.where(certain, np.where(targets > 0, np.inf, -np.inf), logits).astype(np.float32), targets
    labels = random.integers(0, CLASSES, (ROWS, *pixels))
    logits = 3 * random.normal(size=(*labels.shape, CLASSES))
    masked = random.random(logits.shape) < random.choice([0.3, 0.9])  # often the target's class is the only one left
    masked &= np.arange(CLASSES) != labels[..., None]
    logits = np.where(masked, -np.inf, logits).astype(np.float32)
    if kind != "shares":
        return logits, labels
    shares = np.where(masked, 0.0, random.random(logits.shape))
    return logits, (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))  # exp(-inf) is 0: the class is left out
    return powers / powers.sum(axis=-1, keepdims=True)


def probability(logits, targets):
    """Returns the probability of each label, or of each binary target."""
    if logits.ndim > targets.ndim:
        return np.take_along_axis(softmax(logits), targets[..., None], axis=-1)[..., 0]
    return np.where(targets > 0, 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits)))


def masks(logits, targets):
    """Returns probabilities and true masks, (batch, pixels, classes)."""
    if logits.ndim > targets.ndim:
        p, truth = softmax(logits), np.eye(CLASSES)[targets]
    else:
        p, truth = (1 / (1 + np.exp(-logits)))[..., None], targets[..., None]
    return p.reshape(ROWS, -1, p.shape[-1]), truth.reshape(ROWS, -1, p.shape[-1])


def per_example(values):
    return values.reshape(ROWS, -1).mean(axis=1)


def entropy(logits, targets):
    return per_example(-np.log(probability(logits, targets)))


def focal(logits, targets, gamma):
    p = probability(logits, targets)
    return per_example((1 - p) ** gamma * -np.log(p))


def binary_focal(logits, targets, gamma):
    p = probability(logits, targets)
    return per_example(np.where(targets > 0, 0.25, 0.75) * (1 - p) ** gamma * -np.log(p))


def divergence(logits, shares):
    kept = shares > 0
    p = np.where(kept, softmax(logits), 1.0)
    return (shares * (np.log(np.where(kept, shares, 1.0)) - np.log(p))).sum(axis=-1)


def tversky(logits, targets, alpha=0.3, beta=0.7):
    p, truth = masks(logits, targets)
    hits, false, missed = ((a * b).sum(axis=1) for a, b in ((p, truth), (p, 1 - truth), (1 - p, truth)))
    return 1 - ((hits + 1) / (hits + alpha * false + beta * missed + 1)).mean(axis=1)


def dice(logits, targets):
    p, truth = masks(logits, targets)
    return 1 - ((2 * (p * truth).sum(axis=1) + 1) / (p.sum(axis=1) + truth.sum(axis=1) + 1)).mean(axis=1)


def overlap(loss):
    return [(kind, {}, loss) for kind in ("pixels", "masks")]


GAMMAS = (0.0, 0.5, 2.0)
REFERENCES: dict[str, list[tuple[str, dict[str, float], Any]]] = {
    "cross_entropy": [(kind, {"label_smoothing": 0.0}, entropy) for kind in ("labels", "pixels")],
    "binary_cross_entropy": [(kind, {}, entropy) for kind in ("binary", "masks")],
    "focal": [("labels", {"gamma": g}, lambda z, t, g=g: focal(z, t, g)) for g in GAMMAS],
    "binary_focal": [("masks", {"gamma": g}, lambda z, t, g=g: binary_focal(z, t, g)) for g in GAMMAS],
    "kl_divergence": [("shares", {}, divergence)],
    "dice": overlap(dice),
    "iou": overlap(lambda z, t: tversky(z, t, 1.0, 1.0)),
    "tversky": overlap(tversky),
    "dice_cross_entropy": overlap(lambda z, t: dice(z, t) + entropy(z, t)),
}
CASES = [pytest.param(name, *case, id=f"{name}-{i}") for name in REFERENCES for i, case in enumerate(REFERENCES[name])]


def slopes(reference, logits, targets):
    """Returns the gradient of the sum of a reference by central differences; 0 for the infinite logits."""
    found = np.zeros(logits.shape)
    for at in zip(*np.nonzero(np.isfinite(logits)), strict=True):
        ends = []
        for move in (1e-5, -1e-5):
            moved = logits.copy()
            moved[at] += move
            ends.append(reference(moved, targets).sum())
        found[at] = (ends[0] - ends[1]) / 2e-5
    return found


def test_every_loss_of_logits_has_a_case_here():
    assert set(REFERENCES) == set(LOSSES.members) - NUMBERS


@pytest.mark.one_fast_of(4)
@pytest.mark.parametrize(("name", "kind", "floats", "reference"), CASES)
def test_every_loss_and_its_gradients_are_those_without_the_classes_that_are_ruled_out(name, kind, floats, reference):
    @jax.jit
    def value_and_gradients(logits, targets, floats):
        values, pullback = jax.vjp(lambda logits: LOSSES.members[name](logits, targets, **floats), logits)
        return values, pullback(jnp.ones(ROWS))[0]

    for seed in SEEDS:
        logits, targets = draw(seed, kind)
        assert np.isinf(logits).any()
        values, gradients = value_and_gradients(logits, targets, floats)
        exact = logits.astype(np.float64)
        np.testing.assert_allclose(values, reference(exact, targets), rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(gradients, slopes(reference, exact, targets), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "binary_focal"])
def test_the_floats_of_a_loss_have_finite_gradients_beside_infinite_logits(name):
    knob = {"cross_entropy": "label_smoothing"}.get(name, "gamma")
    logits, targets = draw(0, {"binary_focal": "masks"}.get(name, "labels"))
    slope = jax.jit(jax.grad(lambda value: LOSSES.members[name](logits, targets, **{knob: value}).sum()))
    assert np.isfinite(slope(0.0))


@pytest.mark.parametrize(
    ("name", "logits", "target"),
    [
        ("cross_entropy", [[-np.inf, 0.0, 1.0]], 0),
        ("focal", [[-np.inf, 0.0, 1.0]], 0),
        ("binary_cross_entropy", [np.inf], 0),
        ("binary_focal", [-np.inf], 1),
    ],
)
def test_an_infinite_logit_that_contradicts_the_target_costs_infinity(name, logits, target):
    assert LOSSES.members[name](jnp.array(logits), jnp.array([target])) == np.inf


def test_smoothing_gives_a_share_to_classes_that_are_ruled_out_and_1_none_to_the_label():
    loss = LOSSES.members["cross_entropy"]
    assert loss(jnp.array([[0.0, -jnp.inf]]), jnp.array([0]), 0.1) == np.inf
    assert loss(jnp.array([[-jnp.inf, 0.0]]), jnp.array([0]), 1.0) == np.inf


def with_infinities(random, predictions, targets):
    """Returns the predictions with -inf for some classes other than the target, or +-inf where the target agrees."""
    certain = random.random(predictions.shape) < 0.3
    if predictions.ndim == targets.ndim:
        return np.where(certain, np.where(targets > 0, np.inf, -np.inf), predictions).astype(np.float32)
    certain &= np.arange(predictions.shape[-1]) != targets[..., None]
    return np.where(certain, -np.inf, predictions).astype(np.float32)


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize(("predictions", "targets"), test_metrics.CLASSES)
def test_every_metric_is_its_reference_where_classes_are_ruled_out(predictions, targets):
    references = {
        name: reference
        for name, cases in test_metrics.CASES.items()
        for p, _, reference in cases
        if p is predictions and name not in NUMBERS
    }
    assert len(references) >= 17
    measure = jax.jit(lambda *batch: {name: METRICS.members[name](*batch) for name in references})
    for seed in SEEDS:
        logits = with_infinities(np.random.default_rng(seed), predictions, targets)
        found = measure(logits, targets, jnp.ones(len(targets)))
        # The references take no infinities; 1e30 is as far away, since every other logit vanishes beside it.
        far = np.clip(logits.astype(np.float64), -1e30, 1e30)
        for name, reference in references.items():
            numbers = np.array(list(found[name].numbers(name).values()))
            tolerance = test_metrics.TOLERANCES.get(name, {"rel": 1e-5, "abs": 1e-6})
            assert numbers == pytest.approx(np.ravel(reference(far, targets)), **tolerance), name


def test_every_metric_of_logits_has_a_reference_here():
    covered = {
        name for name, cases in test_metrics.CASES.items() for p, *_ in cases for q, _ in test_metrics.CLASSES if p is q
    }
    of_columns = {name for name in METRICS.members if name.endswith(("_per_output", "_per_label", "_label_mean"))}
    assert covered == set(METRICS.members) - NUMBERS - of_columns - {"exact_match"}  # those of one column, and labels


OF_COLUMNS = sorted(name for name in METRICS.members if name.endswith(("_per_label", "_label_mean", "exact_match")))


@pytest.mark.parametrize("name", OF_COLUMNS)
def test_every_metric_of_labels_takes_infinite_logits_for_certain_ones(name):
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, (40, 3))
    logits = with_infinities(random, 3 * random.normal(size=targets.shape), targets)
    logits[:5] *= -1.0  # some are certain and wrong
    measure = jax.jit(lambda logits: METRICS.members[name](logits, targets, jnp.ones(40)))
    found, expected = (measure(each).numbers(name) for each in (logits, np.clip(logits, -1e30, 1e30)))
    assert np.isinf(logits).any()
    assert found == expected
    assert all(map(np.isfinite, found.values()))


def test_the_loss_of_boxes_leaves_classes_out_that_are_ruled_out():
    random = np.random.default_rng(0)
    outputs = random.normal(size=(2, 2, 2, 4 + CLASSES)).astype(np.float32)
    boxes = np.array([[[0, 0.25, 0.25, 0.5, 0.5]], [[-1, 0, 0, 0, 0]]], np.float32)
    ruled_out = outputs.copy()
    ruled_out[..., 4 + 2 :] = -np.inf
    value, pullback = jax.vjp(lambda z: LOSSES.members["focal_giou"](z, boxes), jnp.asarray(ruled_out))
    np.testing.assert_allclose(value, LOSSES.members["focal_giou"](outputs[..., : 4 + 2], boxes), rtol=1e-6)
    (gradient,) = pullback(jnp.ones(2))
    assert np.isfinite(gradient).all()
    assert not gradient[..., 4 + 2 :].any()


@pytest.mark.parametrize("name", sorted(HOST_METRICS.members))
@pytest.mark.parametrize("classes", [1, 2])
def test_every_metric_on_the_host_goes_by_the_order_of_scores_that_are_infinite(name, classes):
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 40)
    logits = random.normal(size=(40, classes))
    logits[:10, 0] = -np.inf
    logits[10:20, -1] = -np.inf
    member = HOST_METRICS.members[name]
    logits = logits[:, 0] if classes == 1 else logits
    found = member(logits, targets)
    assert found == member(np.clip(logits, -1e30, 1e30), targets)
    assert all(map(np.isfinite, found.values()))


@pytest.mark.parametrize("task", ["classification", "multi_label", "binary_classification"])
def test_examples_are_ranked_by_finite_numbers_beside_infinite_logits(task):
    random = np.random.default_rng(0)
    one_label = task == "classification"
    targets = random.integers(0, 2, (12,) if one_label else (12, 3) if task == "multi_label" else (12, 1))
    logits = with_infinities(random, random.normal(size=(12, 3) if one_label else targets.shape), targets)
    info = describe(np.zeros((12, 4), np.float32), targets, None, 3 if one_label else 2)
    views = views_of_labels(info) if task == "multi_label" else views_of_classes(info)
    assert views.wrongness is not None
    assert np.isinf(logits).any()
    assert np.isfinite(views.wrongness(targets, logits)).all()
