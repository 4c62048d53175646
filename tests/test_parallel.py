import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.core.batches import Batches
from jaxtrain.core.state import Rules
from jaxtrain.errors import ConfigError
from jaxtrain.models.mlp import MLP
from jaxtrain.optimizers.schedules import Schedule
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.parallel.mesh import (
    check_batch,
    compile_eval_call,
    compile_init,
    compile_train_call,
    device_mesh,
    replicate,
)
from jaxtrain.tasks.linen import linen_task
from jaxtrain.tasks.losses.classification import cross_entropy

STEPS, BATCH, EXAMPLES = 100, 32, 256
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 10, EXAMPLES).astype(np.int32)
CENTRES = RANDOM.normal(size=(10, 64))
DATA = {"inputs": (CENTRES[LABELS] + 2 * RANDOM.normal(size=(EXAMPLES, 64))).astype(np.float32), "targets": LABELS}
"""Shaped like the digits: 64 features, 10 classes."""
INDICES = np.stack([np.random.default_rng(i).permutation(EXAMPLES)[:BATCH] for i in range(STEPS)]).astype(np.int32)
HPARAMS = {"train.total_steps": float(STEPS), "model.dropout": 0.2, "train.ema": 0.99}


def rules_of(norm: Literal["batch"] | None = "batch", dropout=None, accumulate=1):
    task = linen_task(
        lambda values: MLP(10, (16,), norm=norm, dropout=dropout and values["model.dropout"]),
        lambda values, predictions, targets: cross_entropy(predictions, targets),
        ("accuracy",),
    )
    return Rules(task, Schedule(), lambda values: optax.sgd(0.1, momentum=0.9), accumulate)


PLAIN, DROPOUT, ACCUMULATED = rules_of(), rules_of(dropout=True), rules_of(norm=None, accumulate=2)


@functools.cache
def trained(rules, devices, backend):
    """Returns (state, losses, accuracies, output of the last call) of 100 steps, in calls of 60 and 40."""
    mesh = device_mesh(devices)
    data = replicate(DATA, mesh)
    state = compile_init(rules, mesh)(jax.random.key(0), data, HPARAMS)
    losses, accuracies, compilations = [], [], []
    for begin, steps in ((0, 60), (60, 40)):
        indices = np.zeros((60, BATCH), np.int32)
        indices[:steps] = INDICES[begin : begin + steps]
        with count_compilations() as compiled:
            state, output = compile_train_call(rules, mesh, backend)(state, Batches(data, indices), steps)
        compilations.append(compiled.count)
        for numbers, name in ((losses, "loss"), (accuracies, "accuracy")):
            metric = output.metrics[name]
            assert (np.asarray(metric.count)[:steps] == BATCH).all()
            numbers += (np.asarray(metric.sum)[:steps] / BATCH).tolist()
    assert compilations[0] > compilations[1] == 0
    assert all(leaf.is_fully_replicated and len(leaf.devices()) == devices for leaf in jax.tree.leaves(state))
    return jax.tree.map(np.asarray, (state, losses, accuracies, output))


def assert_close(found, expected, atol=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), found, expected)


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize(
    ("rules", "devices", "backend"),
    [(PLAIN, 4, "mesh"), (PLAIN, 4, "pmap"), (PLAIN, 1, "pmap"), (ACCUMULATED, 4, "mesh"), (ACCUMULATED, 4, "pmap")],
    ids=["mesh", "pmap", "pmap of one", "accumulated mesh", "accumulated pmap"],
)
def test_losses_are_those_of_one_device_batch_norm_and_averages_included(rules, devices, backend):
    state, losses, accuracies, output = trained(rules, devices, backend)
    one_state, one_losses, one_accuracies, one_output = trained(rules, 1, "mesh")
    np.testing.assert_allclose(losses, one_losses, atol=1e-4)
    np.testing.assert_allclose(accuracies, one_accuracies, atol=1e-6)
    assert_close(state.params, one_state.params)
    assert_close(state.model_state, one_state.model_state)
    assert_close(state.ema, one_state.ema)
    assert_close(output.metrics["norm_gradient"].sum, one_output.metrics["norm_gradient"].sum)
    assert output.live
    assert np.mean(one_losses[-10:]) < 0.5 * one_losses[0]


@pytest.mark.slow
def test_with_dropout_the_mesh_still_agrees_and_pmap_draws_anew_on_each_device():
    _, losses, _, _ = trained(DROPOUT, 1, "mesh")
    np.testing.assert_allclose(trained(DROPOUT, 4, "mesh")[1], losses, atol=1e-4)
    mapped = trained(DROPOUT, 4, "pmap")[1]
    assert 1e-3 < np.abs(np.subtract(mapped, losses)[:20]).max() < 2.0
    assert np.mean(mapped[-20:]) == pytest.approx(np.mean(losses[-20:]), abs=0.2)


@pytest.mark.parametrize("backend", ["mesh", "pmap"])
def test_an_evaluation_after_either_backend_is_a_plain_pass(backend):
    mesh = device_mesh(4)
    state = replicate(trained(PLAIN, 4, backend)[0], mesh)
    rows = np.zeros(7 * 40, np.int32)
    rows[:EXAMPLES] = np.arange(EXAMPLES)
    mask = (np.arange(7 * 40) < EXAMPLES).astype(np.float32)
    batches = Batches(replicate(DATA, mesh), rows.reshape(7, 40), mask.reshape(7, 40))
    found = compile_eval_call(PLAIN, mesh)(state, batches)
    params, model_state = state.ema
    variables = {"params": params, **model_state}
    logits = jax.jit(MLP(10, (16,), norm="batch").apply)(variables, DATA["inputs"])
    assert found["loss"].count == EXAMPLES
    assert found["loss"].result() == pytest.approx(float(cross_entropy(logits, jnp.asarray(LABELS)).mean()), rel=1e-4)
    assert found["accuracy"].result() == pytest.approx(float((logits.argmax(axis=1) == LABELS).mean()))


@pytest.mark.parametrize(
    ("batch", "devices", "accumulate", "allowed"),
    [
        (30, 4, 1, "a multiple of 4, for 4 devices"),
        (20, 4, 2, "a multiple of 8, for 4 devices with 2 micro-batches each"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused(batch, devices, accumulate, allowed):
    with pytest.raises(ConfigError) as refusal:
        check_batch("data.batch_size", batch, device_mesh(devices), accumulate)
    assert (refusal.value.key, refusal.value.got, refusal.value.expected) == ("data.batch_size", batch, allowed)
    check_batch("data.batch_size", 4 * batch, device_mesh(devices), accumulate)


@pytest.mark.parametrize("backend", ["mesh", "pmap"])
def test_no_call_ever_cuts_a_batch_down(backend):
    mesh = device_mesh(4)
    data = replicate(DATA, mesh)
    state = compile_init(PLAIN, mesh)(jax.random.key(0), data, HPARAMS)
    with pytest.raises(ValueError, match=r"30|1800"):
        compile_train_call(PLAIN, mesh, backend)(state, Batches(data, INDICES[:60, :30]), 1)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ConfigError) as refusal:
        device_mesh(5)
    assert (refusal.value.key, refusal.value.got) == ("parallel.mesh", 5)
    assert "4" in refusal.value.expected
    assert device_mesh(None).size == 4
    assert list(device_mesh(2).devices.flat) == jax.local_devices()[:2]
