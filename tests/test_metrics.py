import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from jaxtrain.metrics import METRICS, Mean, dice, merge, r2

EXAMPLES = 23
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 5, EXAMPLES).astype(np.int32)
LOGITS = (RANDOM.normal(size=(EXAMPLES, 5)) + 2 * np.eye(5)[LABELS]).astype(np.float32)
NUMBERS = RANDOM.normal(2.0, 3.0, (EXAMPLES, 3)).astype(np.float32)
ESTIMATES = (NUMBERS + RANDOM.normal(size=(EXAMPLES, 3))).astype(np.float32)
MASKS = RANDOM.integers(0, 2, (EXAMPLES, 4, 4)).astype(np.int32)
MASK_LOGITS = (MASKS - 0.5 + RANDOM.normal(size=(EXAMPLES, 4, 4))).astype(np.float32)


def dice_by_hand(predictions, targets):
    return 2 * ((predictions > 0) & (targets > 0)).sum() / ((predictions > 0).sum() + (targets > 0).sum())


CASES = {
    "accuracy": [(LOGITS, LABELS, lambda p, t: sklearn_metrics.accuracy_score(t, p.argmax(axis=1)))],
    "mse": [(p, t, lambda p, t: sklearn_metrics.mean_squared_error(t, p)) for p, t in [(ESTIMATES, NUMBERS)]],
    "r2": [(p, t, lambda p, t: sklearn_metrics.r2_score(t, p)) for p, t in [(ESTIMATES, NUMBERS)]],
    "dice": [(MASK_LOGITS, MASKS, dice_by_hand)],
}
for name in ("mse", "r2"):  # targets of rank 1, too
    CASES[name].append((ESTIMATES[:, 0], NUMBERS[:, 0], CASES[name][0][2]))
PARAMETERS = [pytest.param(name, *case, id=f"{name}-{i}") for name in CASES for i, case in enumerate(CASES[name])]


def test_every_metric_has_a_case_here():
    assert set(CASES) == set(METRICS.members)


def padded(rows, size, junk):
    """Fills rows up to a batch of `size`, with junk where a row is padding."""
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


@pytest.mark.parametrize(("name", "predictions", "targets", "reference"), PARAMETERS)
@pytest.mark.parametrize("junk", [0.0, np.nan, np.inf])
def test_every_metric_equals_its_reference_for_any_batch_size_padding_and_order(
    name, predictions, targets, reference, junk
):
    metric, order = jax.jit(METRICS.members[name]), np.random.default_rng(1)
    for batch_size in (1, 4, 10, 23, 40):
        total = total_of(metric, predictions, targets, batch_size, junk, order)
        assert total.count == EXAMPLES
        assert total.result() == pytest.approx(reference(predictions, targets), rel=2e-6)


@pytest.mark.parametrize("name", METRICS.members)
def test_every_metric_says_nan_where_nothing_was_counted(name):
    predictions, targets, _ = CASES[name][0]
    assert np.isnan(METRICS.members[name](predictions, targets, jnp.zeros(EXAMPLES)).result())


def test_metrics_say_which_way_is_better():
    found = {name: METRICS.members[name](*CASES[name][0][:2], jnp.ones(EXAMPLES)) for name in METRICS.members}
    assert {name for name, metric in found.items() if metric.higher_is_better} == {"accuracy", "r2", "dice"}


def test_mean_counts_weights_and_keeps_the_axes_after_the_batch():
    mean = Mean.of(jnp.array([[1.0, 10.0], [2.0, 20.0], [jnp.inf, jnp.nan]]), jnp.array([1.0, 3.0, 0.0]))
    np.testing.assert_array_equal(mean.sum, [7.0, 70.0])
    assert mean.count == 4.0
    assert Mean(jnp.float32(3.0), jnp.float32(4.0)).result() == 0.75


def test_mean_is_a_pytree_that_sums_over_steps_and_devices():
    stacked = jax.vmap(lambda x: Mean.of(x, jnp.ones(2)))(jnp.array([[1.0, 2.0], [3.0, 6.0]]))
    assert jax.tree.map(lambda leaf: leaf.sum(axis=0), stacked).result() == 3.0


@pytest.mark.parametrize("where", [0, 1, 2])
def test_dice_of_empty_masks_is_1_and_of_one_empty_mask_0(where):
    full, empty = jnp.ones((2, 3, 3)), -jnp.ones((2, 3, 3))
    predictions, targets, expected = [(empty, empty * 0, 1.0), (full, empty * 0, 0.0), (empty, full, 0.0)][where]
    assert dice(predictions, targets, jnp.ones(2)).result() == expected


def test_dice_is_that_of_all_pixels_and_no_mean_of_examples():
    targets = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    predictions = jnp.array([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]])
    assert dice(predictions, targets, jnp.ones(2)).result() == pytest.approx(8 / 9)


def test_r2_of_constant_targets_is_that_of_scikit_learn():
    targets = jnp.full((4,), 2.0)
    assert r2(targets, targets, jnp.ones(4)).result() == sklearn_metrics.r2_score(targets, targets) == 1.0
    assert r2(targets + 2, targets, jnp.ones(4)).result() == sklearn_metrics.r2_score(targets, targets + 2) == 0.0
