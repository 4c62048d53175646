import doctest
import functools
import importlib
import itertools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detection_reference import average_precision_by_hand, random_detections
from sklearn import metrics as sklearn_metrics

from jaxtrain.core.metric import Mean, merge
from jaxtrain.errors import ConfigError
from jaxtrain.tasks.metrics import METRICS, SEVERAL
from jaxtrain.tasks.metrics.classification import CALIBRATION_BINS
from jaxtrain.tasks.metrics.counts import COUNTABLE, count_places
from jaxtrain.tasks.metrics.overlap import dice
from jaxtrain.tasks.metrics.ranking import BINS, FINEST, LARGEST
from jaxtrain.tasks.metrics.regression import r2

EXAMPLES = 23
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 5, EXAMPLES).astype(np.int32)
LOGITS = (RANDOM.normal(size=(EXAMPLES, 7)) + 2 * np.eye(7)[LABELS]).astype(
    np.float32
)  # two of the 7 classes do not occur
NUMBERS = RANDOM.normal(2.0, 3.0, (EXAMPLES, 3)).astype(np.float32)
ESTIMATES = (NUMBERS + RANDOM.normal(size=(EXAMPLES, 3))).astype(np.float32)
MARKS = RANDOM.integers(0, 2, (EXAMPLES, 3)).astype(np.int32)
MARK_LOGITS = (2 * MARKS - 1 + RANDOM.normal(size=(EXAMPLES, 3))).astype(np.float32)
MASKS = RANDOM.integers(0, 2, (EXAMPLES, 4, 4)).astype(np.int32)
MASK_LOGITS = (MASKS - 0.5 + RANDOM.normal(size=(EXAMPLES, 4, 4))).astype(np.float32)
REGIONS = RANDOM.integers(0, 3, (EXAMPLES, 4, 2)).astype(np.int32)
REGION_LOGITS = (RANDOM.normal(size=(EXAMPLES, 4, 2, 4)) + np.eye(4)[REGIONS]).astype(np.float32)
TRUTH = RANDOM.integers(0, 2, EXAMPLES).astype(np.int32)
SCORES = (TRUTH - 0.5 + RANDOM.normal(size=EXAMPLES)).astype(np.float32)
PAIRS = np.stack([-SCORES, SCORES], axis=1)
"""The scores as two logits, whose difference is twice the score."""

BOXES, DETECTIONS = random_detections(RANDOM, EXAMPLES)

CLASSES = [(LOGITS, LABELS), (REGION_LOGITS, REGIONS), (SCORES, TRUTH), (PAIRS, TRUTH), (MASK_LOGITS, MASKS)]
TWO = [(SCORES, TRUTH), (PAIRS, TRUTH), (MASK_LOGITS, MASKS)]
OUTPUTS = [(ESTIMATES, NUMBERS), (ESTIMATES[:, 0], NUMBERS[:, 0])]


def chosen(predictions, targets):
    return (predictions.argmax(axis=-1) if predictions.ndim > targets.ndim else predictions > 0).ravel().astype(int)


def of_chosen(function, **options):
    """Converts a scikit-learn function of (targets, predicted classes) into one of (logits, targets)."""
    return lambda p, t: function(t.ravel(), chosen(p, t), **options)


def of_each(function, **options):
    """Like `of_chosen`, for functions with one value per class, including classes that do not occur."""

    def each(p, t):
        labels = np.arange(p.shape[-1] if p.ndim > t.ndim else 2)
        return function(t.ravel(), chosen(p, t), labels=labels, **options)

    return each


def of_score(function):
    return lambda p, t: function(t.ravel(), (p[:, 1] - p[:, 0] if p.ndim > t.ndim else p).ravel())


def probabilities(p, t):
    logits = (p if p.ndim > t.ndim else np.stack([np.zeros_like(p), p], axis=-1)).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def perplexity_by_scikit_learn(p, t):
    found = probabilities(p, t)
    return np.exp(
        sklearn_metrics.log_loss(t.ravel(), found.reshape(-1, found.shape[-1]), labels=range(found.shape[-1]))
    )


def calibration_error_by_hand(p, t):
    confidence, hits = probabilities(p, t).max(axis=-1).ravel(), chosen(p, t) == t.ravel()
    bins = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1))
    return sum(abs(confidence[bins == b].sum() - hits[bins == b].sum()) for b in set(bins)) / hits.size


def balanced_accuracy_by_scikit_learn(p, t):
    with warnings.catch_warnings(action="ignore"):  # it warns of predicted classes that no target has
        return of_chosen(sklearn_metrics.balanced_accuracy_score)(p, t)


def top(k):
    return lambda p, t: sklearn_metrics.top_k_accuracy_score(
        t.ravel(), p.reshape(-1, p.shape[-1]), k=k, labels=range(p.shape[-1])
    )


def dice_by_scikit_learn(p, t):
    return of_chosen(sklearn_metrics.f1_score, average="macro" if p.ndim > t.ndim else "binary")(p, t)


def iou_by_scikit_learn(p, t):
    return of_chosen(sklearn_metrics.jaccard_score, average="macro" if p.ndim > t.ndim else "binary")(p, t)


def of_each_image(function):
    return lambda p, t: np.mean([function(p[i : i + 1], t[i : i + 1]) for i in range(len(t))])


EACH: Any = None  # a value for each label; scikit-learn accepts this, despite its annotation
ZERO: Any = 0  # scikit-learn accepts this, despite its annotation
SCORED = {
    "precision": functools.partial(sklearn_metrics.precision_score, zero_division=ZERO),
    "recall": functools.partial(sklearn_metrics.recall_score, zero_division=ZERO),
    "f1": functools.partial(sklearn_metrics.f1_score, zero_division=ZERO),
}
REFERENCES = {
    "accuracy": (CLASSES, of_chosen(sklearn_metrics.accuracy_score)),
    "balanced_accuracy": (CLASSES, balanced_accuracy_by_scikit_learn),
    "top_3": (CLASSES[:2], top(3)),
    "top_5": (CLASSES[:1], top(5)),
    "confusion_matrix": (CLASSES, of_each(sklearn_metrics.confusion_matrix)),
    "perplexity": (CLASSES, perplexity_by_scikit_learn),
    "bits_per_byte": (CLASSES[:2], lambda p, t: np.log2(perplexity_by_scikit_learn(p, t))),  # of one byte each
    "calibration_error": (CLASSES, calibration_error_by_hand),
    "roc_auc": (TWO, of_score(sklearn_metrics.roc_auc_score)),
    "average_precision": (TWO, of_score(sklearn_metrics.average_precision_score)),
    "mse": (OUTPUTS, lambda p, t: sklearn_metrics.mean_squared_error(t, p)),
    "rmse": (OUTPUTS, lambda p, t: sklearn_metrics.root_mean_squared_error(t, p)),
    "mae": (OUTPUTS, lambda p, t: sklearn_metrics.mean_absolute_error(t, p)),
    "r2": (OUTPUTS, lambda p, t: sklearn_metrics.r2_score(t, p)),
    "dice": (CLASSES, dice_by_scikit_learn),
    "iou": (CLASSES, iou_by_scikit_learn),
    "image_dice": (CLASSES[:2], of_each_image(dice_by_scikit_learn)),
    "image_iou": (CLASSES[:2], of_each_image(iou_by_scikit_learn)),
    "mean_iou": (CLASSES, of_chosen(sklearn_metrics.jaccard_score, average="macro")),
    "iou_per_class": (CLASSES, of_each(sklearn_metrics.jaccard_score, average=None, zero_division=0)),
}
DETECTED = [(DETECTIONS, BOXES)]
REFERENCES |= {
    "mean_average_precision": (DETECTED, lambda p, t: average_precision_by_hand(p, t, np.arange(50, 100, 5) / 100)),
    "mean_average_precision_50": (DETECTED, lambda p, t: average_precision_by_hand(p, t, [0.5])),
}
SEVERAL_LABELS = [(MARK_LOGITS, MARKS)]
REFERENCES |= {
    "exact_match": (SEVERAL_LABELS, lambda p, t: sklearn_metrics.accuracy_score(t, p > 0)),
    "accuracy_per_label": (SEVERAL_LABELS, lambda p, t: ((p > 0) == t).mean(axis=0)),
    "f1_label_mean": (SEVERAL_LABELS, lambda p, t: sklearn_metrics.f1_score(t, p > 0, average="macro")),
    "f1_per_label": (SEVERAL_LABELS, lambda p, t: sklearn_metrics.f1_score(t, p > 0, average=EACH)),
    "roc_auc_label_mean": (SEVERAL_LABELS, lambda p, t: sklearn_metrics.roc_auc_score(t, p)),
    "roc_auc_per_label": (SEVERAL_LABELS, lambda p, t: sklearn_metrics.roc_auc_score(t, p, average=EACH)),
}
for name in ("mean_squared_error", "root_mean_squared_error", "mean_absolute_error", "r2_score"):
    short = "r2" if name == "r2_score" else "".join(part[0] for part in name.split("_"))
    own = functools.partial(getattr(sklearn_metrics, name), multioutput="raw_values")
    REFERENCES[f"{short}_per_output"] = (OUTPUTS[:1], lambda p, t, own=own: own(t, p))
for name, function in SCORED.items():
    REFERENCES[name] = (TWO, of_chosen(function))
    REFERENCES[f"{name}_per_class"] = (CLASSES, of_each(function, average=None))
    for average in ("micro", "macro"):
        REFERENCES[f"{name}_{average}"] = (CLASSES, of_chosen(function, average=average))

TOLERANCES: dict[str, Any] = {
    "roc_auc": {"abs": 1e-3},
    "roc_auc_label_mean": {"abs": 4e-3},
    "roc_auc_per_label": {"abs": 4e-3},
    "average_precision": {"abs": 1e-2},
    "mean_average_precision": {"abs": 2e-3},
    "mean_average_precision_50": {"abs": 2e-3},
}
"""The tolerances of metrics that are approximate."""
CASES = {name: [(p, t, reference) for p, t in data] for name, (data, reference) in REFERENCES.items()}
PARAMETERS = [pytest.param(name, *case, id=f"{name}-{i}") for name in CASES for i, case in enumerate(CASES[name])]


def test_every_metric_has_a_case_here():
    assert set(CASES) == set(METRICS.members)


@pytest.mark.one_fast_of(4)
@pytest.mark.parametrize("name", METRICS.members)
def test_the_example_of_every_metric_runs(name):
    member = METRICS.members[name]
    (example,) = doctest.DocTestFinder(recurse=False).find(
        member, globs=vars(importlib.import_module(member.__module__)) | {"jnp": jnp}
    )
    assert example.examples, f"{name} has no example"
    assert doctest.DocTestRunner().run(example).failed == 0


def padded(rows, size, junk):
    """Pads rows to a batch of `size` with junk."""
    missing = np.full((size - len(rows), *rows.shape[1:]), junk if rows.dtype == np.float32 else 0, rows.dtype)
    return np.concatenate([rows, missing])


def total_of(metric, predictions, targets, batch_size, junk, order):
    """Measures batch by batch, the last one padded, and merges in the order given by a seed."""
    parts = []
    for i in range(0, EXAMPLES, batch_size):
        rows = slice(i, i + batch_size)
        mask = padded(np.ones(len(predictions[rows]), np.float32), batch_size, 0.0)
        batch = (padded(predictions[rows], batch_size, junk), padded(targets[rows], batch_size, junk))
        parts.append({"metric": metric(*map(jnp.asarray, (*batch, mask)))})
    order.shuffle(parts)
    total = parts[0]
    for part in parts[1:]:
        total = merge(total, part)
    return total["metric"]


@pytest.mark.one_fast_of(4)
@pytest.mark.parametrize(("name", "predictions", "targets", "reference"), PARAMETERS)
def test_every_metric_equals_its_reference_for_any_batch_size_padding_and_order(name, predictions, targets, reference):
    metric, order = jax.jit(METRICS.members[name]), np.random.default_rng(1)
    expected = np.ravel(reference(predictions, targets))
    for junk, batch_size in itertools.product((0.0, np.nan, np.inf), (1, 10)):
        total = total_of(metric, predictions, targets, batch_size, junk, order)
        assert total.count == EXAMPLES
        found = np.array(list(total.numbers(name).values()))
        assert found == pytest.approx(expected, **TOLERANCES.get(name, {"rel": 5e-6, "abs": 1e-7}))


@pytest.mark.one_fast_of(4)
@pytest.mark.parametrize("name", METRICS.members)
def test_every_metric_says_nan_where_nothing_was_counted(name):
    predictions, targets, _ = CASES[name][0]
    assert np.isnan(METRICS.members[name](predictions, targets, jnp.zeros(EXAMPLES)).result())


def test_metrics_say_which_way_is_better():
    found = {name: METRICS.members[name](*CASES[name][0][:2], jnp.ones(EXAMPLES)) for name in METRICS.members}
    assert {name for name, metric in found.items() if not metric.higher_is_better} == {
        "confusion_matrix",
        "perplexity",
        "bits_per_byte",
        "calibration_error",
        "mse",
        "rmse",
        "mae",
        "mse_per_output",
        "rmse_per_output",
        "mae_per_output",
    }


def test_mean_counts_weights_and_keeps_the_axes_after_the_batch():
    mean = Mean.of(jnp.array([[1.0, 10.0], [2.0, 20.0], [jnp.inf, jnp.nan]]), jnp.array([1.0, 3.0, 0.0]))
    np.testing.assert_array_equal(mean.sum, [7.0, 70.0])
    assert mean.count == 4.0
    assert Mean(jnp.float32(3.0), jnp.float32(4.0)).result() == 0.75


def test_mean_is_a_pytree_that_sums_over_steps_and_devices():
    stacked = jax.vmap(lambda x: Mean.of(x, jnp.ones(2)))(jnp.array([[1.0, 2.0], [3.0, 6.0]]))
    assert jax.tree.map(lambda leaf: leaf.sum(axis=0), stacked).result() == 3.0


@pytest.mark.parametrize("name", METRICS.members)
def test_every_metric_of_several_numbers_is_known_as_one_and_flattened_by_place(name):
    predictions, targets, reference = CASES[name][0]
    metric = METRICS.members[name](*map(jnp.asarray, (predictions, targets)), jnp.ones(EXAMPLES))
    shape = np.shape(reference(predictions, targets))
    assert (shape != ()) == (name in SEVERAL)
    assert list(metric.numbers("x")) == ["/".join(("x", *map(str, at))) for at in np.ndindex(shape)]
    if shape:
        with pytest.raises(TypeError, match="expected one number"):
            metric.result()
    else:
        assert metric.numbers("x") == {"x": metric.result()}


@pytest.mark.parametrize("name", METRICS.members)
def test_every_metric_counts_in_float32_whatever_the_model_gives(name):
    predictions, targets, _ = CASES[name][0]
    found = METRICS.members[name](jnp.asarray(predictions, jnp.bfloat16), jnp.asarray(targets), jnp.ones(EXAMPLES))
    assert (found.sum.dtype, found.count.dtype) == (jnp.float32, jnp.float32)


@pytest.mark.parametrize("name", METRICS.members)
def test_every_metric_is_the_same_metric_wherever_it_is_made_so_that_programs_are_shared(name):
    predictions, targets, _ = CASES[name][0]
    one, other = (METRICS.members[name](predictions, jnp.asarray(targets), jnp.ones(EXAMPLES)) for _ in range(2))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert hash(one.finish) == hash(other.finish)


RANKED = {"roc_auc": sklearn_metrics.roc_auc_score, "average_precision": sklearn_metrics.average_precision_score}


def drawn(seed, examples, share, scale):
    """Returns scores, higher for class 1, and the classes, of which a given share is 1."""
    random = np.random.default_rng(seed)
    truth = (random.permutation(examples) < share * examples).astype(np.int32)
    return (scale * (1.5 * truth + random.normal(size=examples) - 1)).astype(np.float32), truth


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_ranking_metrics_keep_their_stated_tolerance_at_any_scale_and_are_exact_between_bins(name, scale, share):
    for seed in range(3):
        scores, truth = drawn(seed, 5000, share, scale)
        found = METRICS.members[name](jnp.asarray(scores), jnp.asarray(truth), jnp.ones(5000)).result()
        assert abs(found - RANKED[name](truth, scores)) < TOLERANCES[name]["abs"]
    scores, truth = drawn(3, 5000, share, scale)
    coarse = np.round(scores / scale * 10) * scale / 10  # further apart than bins, so the result is exact
    exact = METRICS.members[name](jnp.asarray(coarse, jnp.float32), jnp.asarray(truth), jnp.ones(5000)).result()
    assert exact == pytest.approx(RANKED[name](truth, coarse), rel=1e-12)


@pytest.mark.parametrize("examples", [23, 300, 5000])
def test_the_area_is_off_by_half_the_share_of_pairs_in_one_bin_at_most(examples):
    for seed in range(5):
        scores, truth = drawn(seed, examples, 0.1, 0.01)  # so close together that many are ties
        found = METRICS.members["roc_auc"](jnp.asarray(scores), jnp.asarray(truth), jnp.ones(examples))
        negatives, positives = np.asarray(found.sum, np.float64)
        bound = (negatives * positives).sum() / (negatives.sum() * positives.sum()) / 2
        assert abs(found.result() - RANKED["roc_auc"](truth, scores)) <= bound + 1e-12


@pytest.mark.parametrize(("name", "error"), [("roc_auc", 0.1), ("average_precision", 1.0)])
@pytest.mark.parametrize("centre", [0.0, -0.3, 5.0, -30.0, 1000.0])
def test_ranking_metrics_keep_the_promise_of_their_module_wherever_logits_cluster(name, error, centre):
    width = 2 * np.arcsinh(LARGEST / FINEST) / BINS * np.hypot(centre, FINEST)
    metric = jax.jit(METRICS.members[name])
    for bins in (2, 5, 20, 50):
        for examples, share in ((200, 0.5), (5000, 0.02)):
            scores, truth = drawn(4, examples, share, 1.0)
            scores = (centre + bins * width * (scores - scores.mean()) / scores.std()).astype(np.float32)
            found = metric(jnp.asarray(scores), jnp.asarray(truth), jnp.ones(examples)).result()
            assert abs(found - RANKED[name](truth, scores)) < error / bins


@pytest.mark.parametrize("name", RANKED)
def test_ranking_metrics_are_nan_where_a_class_is_missing_and_count_equal_scores_as_scikit_learn(name):
    metric, ones = METRICS.members[name], jnp.ones(4)
    assert np.isnan(metric(jnp.arange(4.0), jnp.zeros(4, jnp.int32), ones).result())
    equal, truth = jnp.ones(4), jnp.array([0, 1, 1, 1])
    expected = {"roc_auc": 0.5, "average_precision": 0.75}[name]
    assert metric(equal, truth, ones).result() == expected


@pytest.mark.parametrize("name", ["precision", "recall", "f1", "roc_auc", "average_precision"])
def test_metrics_of_two_classes_refuse_several(name):
    with pytest.raises(ConfigError, match=rf"task\.metrics: got '{name}'; expected .*7 classes"):
        METRICS.members[name](LOGITS, LABELS, jnp.ones(EXAMPLES))


def test_top_k_takes_equal_logits_as_accuracy_does():
    flat, labels = jnp.zeros((8, 8)), jnp.arange(8)
    for name, expected in {"accuracy": 1 / 8, "top_3": 3 / 8, "top_5": 5 / 8}.items():
        assert METRICS.members[name](flat, labels, jnp.ones(8)).result() == expected
    assert METRICS.members["top_5"](flat[:, :3], labels % 3, jnp.ones(8)).result() == 1.0


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("dice", [dice, METRICS.members["iou"]])
def test_dice_and_iou_of_empty_masks_are_1_and_of_one_empty_mask_0(dice, where):
    full, empty = jnp.ones((2, 3, 3)), -jnp.ones((2, 3, 3))
    predictions, targets, expected = [(empty, empty * 0, 1.0), (full, empty * 0, 0.0), (empty, full, 0.0)][where]
    assert dice(predictions, targets, jnp.ones(2)).result() == expected


def test_dice_is_that_of_all_pixels_and_no_mean_of_examples():
    targets = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    predictions = jnp.array([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]])
    assert dice(predictions, targets, jnp.ones(2)).result() == pytest.approx(8 / 9)


def test_counts_go_on_beyond_the_integers_that_float32_holds():
    places = jnp.zeros((1, COUNTABLE + 1001), jnp.int8)
    found = jax.jit(count_places, static_argnums=2)(places, jnp.ones(1), 2)
    np.testing.assert_allclose(found, [places.size, 0], rtol=1e-7)


@pytest.mark.parametrize("offset", [0.0, 30.0, -1e3, 1e5])
@pytest.mark.parametrize("batch_size", [1, 10, 40])
def test_r2_about_a_centre_is_that_of_float64_however_far_from_0(offset, batch_size):
    targets = (NUMBERS + offset * NUMBERS.std(axis=0)).astype(np.float32)
    predictions = (ESTIMATES + offset * NUMBERS.std(axis=0)).astype(np.float32)
    centre = targets.astype(np.float64).mean(axis=0, keepdims=True).astype(np.float32) + np.float32(1.0)
    metric = functools.partial(r2, centre=centre)
    found = total_of(metric, predictions, targets, batch_size, np.nan, np.random.default_rng(1)).result()
    wide_targets, wide_predictions = targets.astype(np.float64), predictions.astype(np.float64)
    mean = wide_targets.mean(axis=0)
    assert found == pytest.approx(sklearn_metrics.r2_score(wide_targets - mean, wide_predictions - mean), rel=1e-4)


def test_r2_is_nan_where_it_is_undefined_or_where_float32_sums_hold_no_spread():
    assert np.isnan(r2(jnp.ones(1), jnp.ones(1), jnp.ones(1)).result())
    assert np.isnan(r2(jnp.ones(2), jnp.ones(2), jnp.array([1.0, 0.0])).result()), "one example and padding"
    far = jnp.float32(1e4) + jnp.asarray(NUMBERS)
    assert np.isnan(r2(far, far, jnp.ones(EXAMPLES)).result())
    assert r2(far, far, jnp.ones(EXAMPLES), centre=1e4).result() == 1.0


def test_r2_of_constant_targets_is_that_of_scikit_learn():
    targets = jnp.full((4,), 2.0)
    assert r2(targets, targets, jnp.ones(4)).result() == sklearn_metrics.r2_score(targets, targets) == 1.0
    assert r2(targets + 2, targets, jnp.ones(4)).result() == sklearn_metrics.r2_score(targets, targets + 2) == 0.0
