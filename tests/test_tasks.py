import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sklearn_metrics

from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.resolve import resolve_config
from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Rules, Task, init_state
from jaxtrain.core.steps import eval_step, train_call
from jaxtrain.data.info import describe
from jaxtrain.errors import ConfigError, DataError
from jaxtrain.models.convolution import Conv
from jaxtrain.optimizers.schedules import Schedule
from jaxtrain.tasks import make_task
from jaxtrain.tasks.linen import linen_task
from jaxtrain.tasks.regression import regression
from jaxtrain.training.bookkeeping import to_numbers

RANDOM = np.random.default_rng(0)
KEY = jax.random.key(0)
RATE = 0.01


def own_loss(predictions, targets, power: float = 2.0):
    """A user's loss, with a float knob."""
    return (jnp.abs(predictions - targets) ** power).mean(axis=-1)


class OwnModel(nn.Module):
    """A user's model: an affine map with a float knob, for outputs and for pixels alike."""

    outputs: int
    gain: float = 1.0

    @nn.compact
    def __call__(self, inputs, train=False):
        return self.gain * nn.Dense(self.outputs)(inputs)


class Pixels(nn.Module):
    """A user's model for masks: two convolutions and a logit for each pixel."""

    outputs: int
    width: int = 8

    @nn.compact
    def __call__(self, inputs, train=False):
        return Conv(self.outputs)(nn.relu(Conv(self.width)(inputs)))


def own_task(model, loss, info, shift: float = 0.0, metrics: tuple[str, ...] = ("mse",)) -> Task:
    """A user's task, with a float knob: predicts the targets plus `shift`."""
    return linen_task(
        lambda values: model(values, *info.target_shape), loss, metrics, prepared=lambda targets: targets + shift
    )


def made(inputs, targets, classes=None, **sections):
    """Returns (task, hparams) of a config."""
    config = resolve_config(sections).config
    info = describe(inputs, targets, None, classes)
    hparams = hyperparameters(config) | {"train.total_steps": 100.0, "optimizer.learning_rate": RATE}
    return make_task(config, info), {name: jnp.float32(value) for name, value in hparams.items()}


def trained(task, hparams, inputs, targets, steps=300, rate=RATE):
    """Returns the state after full-batch steps of Adam, and its metrics on the whole data."""
    rules = Rules(task, Schedule(), lambda values: optax.adam(rate))
    data = {"inputs": jnp.asarray(inputs, jnp.float32), "targets": jnp.asarray(targets)}
    state = jax.jit(functools.partial(init_state, rules=rules))(KEY, data, hparams)
    indices = np.tile(np.arange(len(inputs)), (steps, 1))
    state, output = jax.jit(functools.partial(train_call, rules=rules))(state, Batches(data, indices), np.int32(steps))
    assert output.live
    found = jax.jit(functools.partial(eval_step, rules=rules))(state, data)
    return state, to_numbers(found)


def measured(task, hparams, inputs, targets):
    """Returns the metrics at the initial weights."""

    @jax.jit
    def found(batch):
        params, model_state = task.init(KEY, batch, hparams)
        return task.loss(params, model_state, batch, KEY, hparams, False)[1][1]

    return found({"inputs": inputs, "targets": targets})


INPUTS = RANDOM.normal(size=(64, 4)).astype(np.float32)
LABELS = (INPUTS[:, :3].argmax(axis=1)).astype(np.int32)
MLP = {"name": "mlp", "hidden": (16,)}


def test_classification_learns_and_reports_what_scikit_learn_finds_in_its_predictions():
    task, hparams = made(INPUTS, LABELS, 3, model=MLP)
    state, found = trained(task, hparams, INPUTS, LABELS)
    logits = np.asarray(jax.jit(task.predict)(state.params, state.model_state, INPUTS, hparams))
    assert logits.shape == (64, 3)
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(LABELS, logits.argmax(axis=1)))
    assert found["accuracy"] > 0.95
    expected = sklearn_metrics.log_loss(LABELS, jax.nn.softmax(logits))
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_a_task_leaves_padding_out_and_its_gradients_too():
    task, hparams = made(INPUTS, LABELS, 3, model=MLP)
    batch = {"inputs": jnp.asarray(INPUTS[:8]), "targets": jnp.asarray(LABELS[:8])}
    params, model_state = jax.jit(task.init)(KEY, batch, hparams)
    gradients = jax.jit(jax.grad(lambda params, batch: task.loss(params, model_state, batch, KEY, hparams, True)[0]))
    short = jax.tree.map(lambda array: array[:5], batch)
    padded = batch | {"mask": (jnp.arange(8) < 5).astype(jnp.float32)}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradients(params, padded), gradients(params, short)
    )


def test_classification_refuses_targets_that_are_no_labels():
    with pytest.raises(DataError, match=r"task\.name: got 'classification'; expected .*labels"):
        made(INPUTS, INPUTS, None)[0].init(KEY, {"inputs": INPUTS}, {"model.dropout": 0.0})


@pytest.mark.one_fast_of(2)
@pytest.mark.parametrize(
    ("outputs", "mean", "deviation"), [(None, 1e4, 1.0), (2, 1e4, 1.0), (None, -3.0, 1e-3), (2, 0.0, 1.0)]
)
def test_regression_reports_in_the_targets_own_units_however_far_they_lie_from_0(outputs, mean, deviation):
    weights = RANDOM.normal(size=(4,) if outputs is None else (4, outputs))
    noise = 0.3 * RANDOM.normal(size=(64,) if outputs is None else (64, outputs))
    targets = (mean + deviation * (np.tanh(INPUTS @ weights) + noise)).astype(np.float32)
    task, hparams = made(INPUTS, targets, task="regression", loss="mse", model=MLP | {"hidden": (4,)})
    state, found = trained(task, hparams, INPUTS, targets, rate=0.05)
    predictions = np.asarray(jax.jit(task.predict)(state.params, state.model_state, INPUTS, hparams))
    assert predictions.shape == targets.shape
    resolution = abs(float(np.spacing(np.float32(mean)))) / deviation  # the precision of float32 this far from 0
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(targets, predictions), abs=1e-5 + resolution)
    assert found["mse"] == pytest.approx(
        sklearn_metrics.mean_squared_error(targets, predictions), rel=1e-3 + 4 * resolution
    )
    assert found["r2"] > 0.6
    assert found["loss"] == pytest.approx(1 - found["r2"], abs=0.1)  # of standardised targets


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_own_tasks_measure_r2_about_the_training_mean_however_far_from_0(offset):
    """Up to 1e5 standard deviations, against NumPy in float64 over the same float32 values."""
    targets = (offset + INPUTS[:, :2]).astype(np.float32)
    section = {"name": "test_tasks:own_task", "shift": -0.5, "metrics": ("r2",)}
    task, hparams = made(INPUTS, targets, task=section, loss="test_tasks:own_loss", model="test_tasks:OwnModel")
    batch = {"inputs": INPUTS, "targets": targets}
    params, model_state = task.init(KEY, batch, hparams)
    params = jax.tree.map(lambda leaf: leaf + offset if leaf.ndim == 1 else leaf, params)  # the bias
    predictions = np.asarray(task.predict(params, model_state, INPUTS, hparams), np.float64)
    found = task.loss(params, model_state, batch, KEY, hparams, False)[1][1]["r2"].result()
    shifted = (targets + np.float32(-0.5)).astype(np.float64)
    assert found == pytest.approx(sklearn_metrics.r2_score(shifted - offset, predictions - offset), rel=1e-4)


def wrapped_regression(model, loss, info):
    """A user's task that is built on ours."""
    return regression(model, loss, info)


def test_a_task_that_wraps_regression_is_refused_targets_that_float32_has_rounded():
    task, hparams = made(
        INPUTS, 2460000.5 + INPUTS[:, 0].astype(float), task="test_tasks:wrapped_regression", model=MLP
    )
    with pytest.raises(DataError, match=r"targets of mean 24600\d\d\.\d+ and deviation \d\.\d+ in float32; expected"):
        task.init(KEY, {"inputs": INPUTS}, hparams)


def test_regression_takes_whole_numbers_and_refuses_images_as_targets():
    targets = RANDOM.integers(50, 300, 64)
    task, hparams = made(INPUTS, targets, task="regression", loss="mse", model=MLP)
    found = measured(task, hparams, INPUTS, targets.astype(np.int32))
    assert found["r2"].result() < 0.5
    with pytest.raises(
        DataError, match=r"task\.name: got 'regression' for targets of shape \(4, 4\) an example; expected "
    ):
        made(INPUTS, np.zeros((64, 4, 4)), task="regression", loss="mse")[0].init(KEY, {"inputs": INPUTS}, {})


def blobs(count, size=12):
    """Noisy images of one bright disc each, and the masks of the discs; every fourth is empty."""
    rows, columns = np.mgrid[:size, :size]
    centres, radii = RANDOM.uniform(3, size - 3, (2, count, 1, 1)), RANDOM.uniform(1.5, 3, (count, 1, 1))
    masks = (rows - centres[0]) ** 2 + (columns - centres[1]) ** 2 < radii**2
    masks[::4] = False
    images = masks + 0.3 * RANDOM.normal(size=masks.shape)
    return images[..., None].astype(np.float32), masks.astype(np.int32)


def test_segmentation_with_dice_learns_blobs():
    images, masks = blobs(48)
    model = {"name": "test_tasks:Pixels", "width": 4}
    task, hparams = made(images, masks, task="segmentation", loss="dice", model=model)
    state, found = trained(task, hparams, images, masks, steps=80, rate=0.03)
    logits = np.asarray(jax.jit(task.predict)(state.params, state.model_state, images, hparams))
    assert logits.shape == masks.shape
    overlap = 2 * ((logits > 0) & (masks > 0)).sum() / ((logits > 0).sum() + masks.sum())
    assert found["dice"] == pytest.approx(overlap, rel=1e-5)
    assert found["dice"] > 0.9


def test_segmentation_of_classes_learns_regions_and_reports_them_each():
    images, masks = blobs(32)
    right = np.arange(12) > 8  # the third class, which a second channel shows
    regions = np.where(masks > 0, 1, 2 * right)
    inputs = np.concatenate([images, np.broadcast_to(right[:, None], (32, 12, 12, 1))], -1)
    model, metrics = {"name": "test_tasks:Pixels", "width": 4}, ("dice", "mean_iou", "iou_per_class")
    section = {"name": "segmentation", "metrics": metrics}
    task, hparams = made(inputs, regions, 3, task=section, loss="dice_cross_entropy", model=model)
    state, found = trained(task, hparams, inputs, regions.astype(np.int32), steps=60, rate=0.03)
    logits = np.asarray(jax.jit(task.predict)(state.params, state.model_state, inputs, hparams))
    assert logits.shape == (*regions.shape, 3)
    average: Any = None  # scikit-learn accepts this, despite its annotation
    each: Any = sklearn_metrics.jaccard_score(regions.ravel(), logits.argmax(axis=-1).ravel(), average=average)
    np.testing.assert_allclose([found[f"iou_per_class/{label}"] for label in range(3)], each, rtol=1e-5)
    assert found["mean_iou"] == pytest.approx(each.mean(), rel=1e-5)
    assert found["dice"] > 0.8


@pytest.mark.parametrize("outputs", [None, 3])
def test_binary_classification_learns_one_label_or_several_and_reports_what_scikit_learn_finds(outputs):
    weights = RANDOM.normal(size=(4,) if outputs is None else (4, outputs))
    targets = (INPUTS @ weights > 0).astype(np.int32)
    section = {"name": "binary_classification", "metrics": ("accuracy", "f1", "roc_auc")}
    classes = 2 if outputs is None else None
    task, hparams = made(INPUTS, targets, classes, task=section, loss="binary_cross_entropy", model=MLP)
    state, found = trained(task, hparams, INPUTS, targets, steps=40, rate=0.03)
    logits = np.asarray(jax.jit(task.predict)(state.params, state.model_state, INPUTS, hparams))
    assert logits.shape == targets.shape
    truth, chosen = targets.ravel(), logits.ravel() > 0
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, chosen), rel=1e-6)
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(truth, chosen), rel=1e-6)
    assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, logits.ravel()), abs=1e-3)
    assert found["accuracy"] > 0.9


def test_label_distribution_learns_shares_to_their_entropy():
    shares = np.asarray(jax.nn.softmax(INPUTS[:, :3]))
    task, hparams = made(INPUTS, shares, task="label_distribution", loss="kl_divergence", model=MLP)
    state, found = trained(task, hparams, INPUTS, shares, steps=100, rate=0.03)
    assert found["loss"] < 0.01
    outputs = jax.nn.softmax(jax.jit(task.predict)(state.params, state.model_state, INPUTS, hparams))
    np.testing.assert_allclose(outputs, shares, atol=0.15)


@pytest.mark.parametrize(
    ("section", "targets", "classes", "loss"),
    [
        ("binary_classification", LABELS, 3, "binary_cross_entropy"),
        ("label_distribution", LABELS, 3, "kl_divergence"),
        ("classification", np.zeros((64, 4), np.int32), 3, "cross_entropy"),
        ({"name": "binary_classification", "class_balance": 0.9}, INPUTS > 0, None, "binary_cross_entropy"),
    ],
)
def test_tasks_refuse_data_that_they_cannot_learn_from(section, targets, classes, loss):
    name = section if isinstance(section, str) else section["name"]
    key = r"task\.class_balance: got a float" if isinstance(section, dict) else rf"task\.name: got '{name}'"
    task, hparams = made(INPUTS, targets, classes, task=section, loss=loss, model=MLP)
    with pytest.raises(DataError, match=rf"{key}.*; expected "):
        task.init(KEY, {"inputs": INPUTS}, hparams)


@pytest.mark.parametrize("task", ["classification", "binary_classification"])
def test_class_balance_weighs_any_loss_by_class_may_be_traced_and_is_left_out_where_it_is_none(task):
    labels = (np.arange(64) % 8 == 0).astype(np.int32)
    loss = {"classification": "focal", "binary_classification": "binary_focal"}[task]
    section = {"name": task, "class_balance": 0.9}
    weighted, hparams = made(INPUTS, labels, 2, task=section, loss=loss, model=MLP)
    plain, others = made(INPUTS, labels, 2, task=task, loss=loss, model=MLP)
    assert hparams["task.class_balance"] == np.float32(0.9)
    assert "task.class_balance" not in others
    batch = {"inputs": jnp.asarray(INPUTS), "targets": jnp.asarray(labels)}
    params, model_state = jax.jit(plain.init)(KEY, batch, others)

    def loss_of(task, values, rows):
        part = jax.tree.map(lambda array: array[rows], batch)
        return task.loss(params, model_state, part, KEY, values, False)[0]

    rare, common = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=0)
    def ratios(beta):
        values = hparams | {"task.class_balance": beta}
        return jnp.array([loss_of(weighted, values, r) / loss_of(plain, others, r) for r in (rare, common)])

    found = ratios(jnp.array([0.0, 0.9, 1.0]))
    np.testing.assert_allclose(found[0], [1.0, 1.0], rtol=1e-5)
    np.testing.assert_allclose(found[2], [64 / 2 / 8, 64 / 2 / 56], rtol=1e-5)
    np.testing.assert_allclose(found[1, 0] / found[1, 1], (1 - 0.9**56) / (1 - 0.9**8), rtol=1e-4)


def test_own_task_loss_and_model_by_reference_take_every_float_traced():
    targets = INPUTS @ RANDOM.normal(size=(4, 2)).astype(np.float32)
    sections = {
        "task": {"name": "test_tasks:own_task", "shift": 1.0},
        "loss": {"name": "test_tasks:own_loss", "power": 3.0},
        "model": {"name": "test_tasks:OwnModel", "gain": 0.5},
    }
    task, hparams = made(INPUTS, targets, **sections)
    assert {"task.shift": 1.0, "loss.power": 3.0, "model.gain": 0.5}.items() <= hparams.items()
    batch = {"inputs": jnp.asarray(INPUTS), "targets": jnp.asarray(targets)}
    params, model_state = jax.jit(task.init)(KEY, batch, hparams)

    def loss_of(values):
        return task.loss(params, model_state, batch, KEY, hparams | values, False)[0]

    lanes = {"task.shift": [1.0, -2.0], "loss.power": [3.0, 1.0], "model.gain": [0.5, 2.0]}
    lanes = {name: jnp.array(numbers) for name, numbers in lanes.items()}
    found = jax.jit(jax.vmap(loss_of))(lanes)
    outputs = INPUTS @ np.asarray(params["Dense_0"]["kernel"])
    expected = [(abs(0.5 * outputs - targets - 1) ** 3).mean(), abs(2 * outputs - targets + 2).mean()]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_configs_that_differ_in_floats_alone_share_their_task():
    def task(power, width):
        loss = {"name": "test_tasks:own_loss", "power": power}
        return made(INPUTS, INPUTS, task="test_tasks:own_task", loss=loss, model=MLP | {"hidden": (width,)})[0]

    assert task(2.0, 8) is task(3.0, 8)
    assert task(2.0, 8) is not task(2.0, 9)


def test_metrics_of_a_task_are_chosen_by_name_and_an_unknown_one_is_refused():
    targets = INPUTS[:, :2]
    for metrics in ((), ("r2",)):
        task, hparams = made(INPUTS, targets, task={"name": "regression", "metrics": metrics}, loss="mse", model=MLP)
        assert set(measured(task, hparams, INPUTS, targets)) == {"loss", *metrics}
    with pytest.raises(ConfigError) as refusal:
        made(INPUTS, LABELS, 3, task={"name": "classification", "metrics": ("acuracy",)})[0].init(
            KEY, {"inputs": INPUTS}, {}
        )
    assert refusal.value.key.startswith("task.metrics")
    assert refusal.value.got == "acuracy"
    assert "accuracy" in refusal.value.expected


def test_tasks_of_a_model_with_dropout_draw_in_training_alone():
    task, hparams = made(INPUTS, LABELS, 3, model=MLP | {"dropout": 0.5})
    batch = {"inputs": jnp.asarray(INPUTS), "targets": jnp.asarray(LABELS)}
    params, model_state = jax.jit(task.init)(KEY, batch, hparams)

    @functools.partial(jax.jit, static_argnames="train")
    def loss(key, train):
        total, (_, metrics) = task.loss(params, model_state, batch, key, hparams, train)
        assert isinstance(metrics["loss"], Mean)
        return total

    keys = jax.random.split(KEY)
    assert loss(keys[0], train=True) == loss(keys[0], train=True) != loss(keys[1], train=True)
    assert loss(keys[0], train=False) == loss(keys[1], train=False)
