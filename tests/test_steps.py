import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.core.averaging import evaluation_weights
from jaxtrain.core.batches import Batches
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Rules, Task, TrainState, init_state
from jaxtrain.core.steps import eval_call, eval_step, train_call, train_step
from jaxtrain.core.trees import state_digest
from jaxtrain.models.mlp import MLP
from jaxtrain.optimizers.schedules import Schedule
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.tasks.linen import linen_task
from jaxtrain.tasks.losses.classification import cross_entropy

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(48, 5)).astype(np.float32)
LABELS = INPUTS[:, :3].argmax(axis=1).astype(np.int32)
DATA = {"inputs": INPUTS, "targets": LABELS}
INDICES = np.stack([np.random.default_rng(step).permutation(48)[:16] for step in range(6)]).astype(np.int32)
KEY = jax.random.key(7)
HPARAMS = {"optimizer.learning_rate": 0.05, "optimizer.b1": 0.8, "train.total_steps": 6}


def task_of(norm=None, dropout=None):
    return linen_task(
        lambda values: MLP(3, (8,), norm=norm, dropout=dropout and values["model.dropout"]),
        lambda values, predictions, targets: cross_entropy(predictions, targets),
        ("accuracy",),
    )


def adam(values):
    return optax.adam(values["optimizer.learning_rate"], values["optimizer.b1"])


def sgd(values):
    return optax.sgd(values["optimizer.learning_rate"])


def halving(step, hparams):
    return dict(hparams) | {
        "optimizer.learning_rate": hparams["optimizer.learning_rate"] * 0.5 ** step.astype(jnp.float32)
    }


PLAIN, BATCH_NORM, DROPOUT = task_of(), task_of(norm="batch"), task_of(norm="batch", dropout=True)
FULL = Rules(DROPOUT, Schedule(), adam)
"""Rules with batch norm, dropout and, if hparams have `train.ema`, averages."""
FULL_HPARAMS = HPARAMS | {"model.dropout": 0.3, "train.ema": 0.9}

jitted_init = jax.jit(init_state, static_argnames="rules")
jitted_step = jax.jit(train_step, static_argnames="rules")
jitted_call = jax.jit(train_call, static_argnames=("rules", "step"))
jitted_eval_step = jax.jit(eval_step, static_argnames="rules")
jitted_eval_call = jax.jit(eval_call, static_argnames="rules")


def start(rules, hparams=HPARAMS) -> TrainState:
    return jitted_init(KEY, DATA, hparams, rules=rules._replace(accumulate=1))


def rows(indices):
    return {name: array[indices] for name, array in DATA.items()}


def assert_equal(found, expected):
    """Compares two trees to the bit."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def assert_close(found, expected, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol), found, expected)


def at(tree, place):
    """Takes one row of the leading axis of every leaf, on the host, where slicing compiles nothing."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[place], tree)


def mean(trees):
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *jax.device_get(trees))


@jax.jit
def by_hand(params, batch):
    """Returns ((loss, logits), gradients)."""

    def loss(params):
        logits: Any = MLP(3, (8,)).apply({"params": params}, batch["inputs"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean(), logits

    return jax.value_and_grad(loss, has_aux=True)(params)


@jax.jit
def adam_by_hand(rate, gradients, opt_state, params):
    """Returns the parameters moved, the optimizer's state, and the norms of gradients and updates."""
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optax.adam(rate, 0.8).update(gradients, opt_state)
    return optax.apply_updates(params, updates), opt_state, optax.tree.norm(gradients), optax.tree.norm(updates)


def test_a_step_is_what_optax_does_by_hand_with_this_steps_values():
    rules = Rules(PLAIN, halving, adam)
    state = start(rules)
    params = state.params
    opt_state = jax.jit(optax.adam(0.05, 0.8).init)(params)
    for step in range(3):
        batch = rows(INDICES[step])
        (value, logits), gradients = by_hand(params, batch)
        params, opt_state, gradient_norm, update_norm = adam_by_hand(0.05 * 0.5**step, gradients, opt_state, params)
        state, metrics = jitted_step(state, batch, rules=rules)
        found = {name: metric.result() for name, metric in metrics.items()}
        assert found == {
            "loss": pytest.approx(float(value), rel=1e-5),
            "accuracy": pytest.approx((np.argmax(logits, axis=1) == batch["targets"]).mean()),
            "norm_gradient": pytest.approx(float(gradient_norm), rel=1e-4),
        }
        assert update_norm > 1e-3
    assert_close(state.params, params)
    assert_close(state.opt_state, opt_state)
    assert (int(state.step), bool(state.live)) == (3, True)


def test_a_step_reads_its_hyperparameters_from_the_state_and_maps_over_them():
    rules = Rules(PLAIN, Schedule(), sgd)
    rates = jnp.array([0.0, 0.1, 1.0])
    state = start(rules)
    states = jax.vmap(lambda rate: state.replace(hparams=state.hparams | {"optimizer.learning_rate": rate}))(rates)
    lanes, _ = jax.jit(jax.vmap(functools.partial(train_step, rules=rules), in_axes=(0, None)))(states, DATA)
    for lane, rate in enumerate(rates):
        alone = state.replace(hparams=state.hparams | {"optimizer.learning_rate": rate})
        assert_close(at(lanes, lane), jitted_step(alone, DATA, rules=rules)[0])
    assert_equal(at(lanes.params, 0), state.params)
    assert_equal(lanes.hparams["optimizer.learning_rate"], rates)


def test_steps_draw_by_key_and_step_alone():
    state, batch = start(FULL, FULL_HPARAMS), rows(INDICES[0])

    def loss(state):
        return float(jitted_step(state, batch, rules=FULL)[1]["loss"].sum)

    other = state.replace(key=jax.random.key_data(jax.random.key(8)))
    assert loss(state) == loss(state)
    assert len({loss(state), loss(state.replace(step=state.step + 1)), loss(other)}) == 3


def with_metrics(metrics):
    """Returns rules whose task reports these metrics."""

    def loss(*arguments):
        value, (model_state, found) = PLAIN.loss(*arguments)
        return value, (model_state, metrics(found))

    return Rules(Task(PLAIN.init, loss, PLAIN.predict), Schedule(), sgd)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (lambda found: found | {"mine": found["loss"].sum}, r"'mine'.*; expected a dict of name -> jaxtrain\.Mean"),
        (lambda found: found["loss"], r"dict of name -> jaxtrain\.Mean"),
        (lambda found: {"accuracy": found["accuracy"]}, r"\['accuracy'\]; expected 'loss' among them"),
    ],
    ids=["number", "no dict", "no loss"],
)
def test_metrics_in_another_form_are_refused_when_the_step_is_traced(metrics, message):
    rules, state = with_metrics(metrics), start(Rules(PLAIN, Schedule(), sgd))
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(functools.partial(train_step, rules=rules), state, DATA)
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(functools.partial(eval_step, rules=rules), state, DATA)


def test_accumulation_equals_the_big_batch():
    rules = Rules(PLAIN, Schedule(), sgd, accumulate=4)
    state, big = start(rules), rules._replace(accumulate=1)
    found, metrics = jitted_step(state, rows(INDICES[0]), rules=rules)
    expected, expected_metrics = jitted_step(state, rows(INDICES[0]), rules=big)
    assert_close(found.params, expected.params, atol=1e-5)
    assert_close(metrics, expected_metrics, atol=1e-4)


def test_accumulated_batch_norm_has_the_mean_of_the_statistics_of_its_micro_batches():
    rules = Rules(BATCH_NORM, Schedule(), sgd, accumulate=4)
    state, batch = start(rules), rows(INDICES[0])
    one_by_one = [
        jitted_step(state, {name: array[i::4] for name, array in batch.items()}, rules=rules._replace(accumulate=1))[0]
        for i in range(4)
    ]
    found, _ = jitted_step(state, batch, rules=rules)
    assert_close(found.model_state, mean([s.model_state for s in one_by_one]))
    assert_close(found.params, mean([s.params for s in one_by_one]))
    big, _ = jitted_step(state, batch, rules=rules._replace(accumulate=1))
    stats, big_stats = (s.model_state["batch_stats"]["BatchNorm_0"] for s in (found, big))
    assert_close(stats["mean"], big_stats["mean"])  # each micro-batch began with the same running mean
    assert (stats["mean"] != state.model_state["batch_stats"]["BatchNorm_0"]["mean"]).all()


def test_micro_batches_draw_other_dropout_masks():
    rules = FULL._replace(accumulate=2)
    twice = {name: np.repeat(array[INDICES[0][:8]], 2, axis=0) for name, array in DATA.items()}  # two equal halves
    state = start(rules, FULL_HPARAMS)
    two = jitted_step(state, twice, rules=rules)[0]
    one = jitted_step(state, rows(INDICES[0][:8]), rules=FULL)[0]
    assert abs(two.params["Dense_0"]["kernel"] - one.params["Dense_0"]["kernel"]).max() > 1e-4


def test_averages_follow_the_formula_for_parameters_and_statistics_and_are_what_is_evaluated():
    rules = Rules(BATCH_NORM, Schedule(), sgd)
    state = start(rules, HPARAMS | {"train.ema": 0.2})
    average = jax.device_get((state.params, state.model_state))
    for step, decay in enumerate((0.1, 2 / 11, 0.2, 0.2)):
        state, _ = jitted_step(state, rows(INDICES[step]), rules=rules)
        average = jax.tree.map(
            lambda old, new, d=decay: d * old + (1 - d) * new, average, (state.params, state.model_state)
        )
        assert_close(state.ema, average)
    assert evaluation_weights(state) == state.ema
    averaged = state.replace(params=average[0], model_state=average[1], ema=None)
    found, expected = (jitted_eval_step(s, DATA, rules=rules) for s in (state, averaged))
    assert_close(found, expected, atol=1e-4)
    assert start(rules).ema is None
    assert evaluation_weights(averaged) == (averaged.params, averaged.model_state)


def test_a_call_of_k_steps_is_k_steps():
    """Up to rounding, since a step compiled alone is another program; calls agree bit for bit, see below."""
    state = start(FULL, FULL_HPARAMS)
    called, output = jitted_call(state, Batches(DATA, INDICES), np.int32(6), rules=FULL)
    for step in range(6):
        state, metrics = jitted_step(state, rows(INDICES[step]), rules=FULL)
        for name in ("loss", "accuracy"):
            assert_close(at(output.metrics[name], step), metrics[name])
    assert_close(called, state)
    assert output.live
    assert called.step == 6


def test_calls_are_cut_anywhere_to_the_bit():
    whole, output = jitted_call(start(FULL, FULL_HPARAMS), Batches(DATA, INDICES), np.int32(6), rules=FULL)
    state, losses = start(FULL, FULL_HPARAMS), []
    for begin, steps in ((0, 1), (1, 3), (4, 2)):
        indices = np.roll(INDICES, -begin, axis=0)
        state, part = jitted_call(state, Batches(DATA, indices), np.int32(steps), rules=FULL)
        losses += np.asarray(part.metrics["loss"].sum[:steps]).tolist()
        assert not part.metrics["loss"].sum[steps:].any()
    assert_equal(state, whole)
    assert losses == output.metrics["loss"].sum.tolist()


def test_one_compiled_program_serves_every_length_and_all_floats():
    rules = Rules(task_of(norm="batch", dropout=True), Schedule(), adam)  # equal to no rules that were compiled before
    state = start(rules, FULL_HPARAMS)
    others = state.replace(hparams=jax.tree.map(lambda value: value * jnp.float32(0.5), state.hparams))
    with count_compilations() as first:
        jitted_call(state, Batches(DATA, INDICES), np.int32(6), rules=rules)
    with count_compilations() as later:
        for steps in range(7):
            jitted_call(state, Batches(DATA, INDICES), np.int32(steps), rules=rules)
        after, output = jitted_call(others, Batches(DATA, INDICES), np.int32(6), rules=rules)
    assert (first.count, later.count) == (1, 0)
    assert output.values["optimizer.learning_rate"] == pytest.approx(0.025)
    assert after.hparams["model.dropout"] == pytest.approx(0.15)


def test_norms_are_measured_on_the_last_step_alone():
    rules = Rules(PLAIN, Schedule(), sgd)
    state = start(rules)
    _, output = jitted_call(state, Batches(DATA, INDICES), np.int32(4), rules=rules)
    before, _ = jitted_call(state, Batches(DATA, INDICES), np.int32(3), rules=rules)
    after, metrics = jitted_step(before, rows(INDICES[3]), rules=rules)
    update = jax.tree.map(jnp.subtract, after.params, before.params)
    expected = {
        "norm_gradient": metrics["norm_gradient"].sum,
        "norm_update": optax.tree.norm(update),
        "norm_parameter": optax.tree.norm(after.params),
    }
    for name, value in expected.items():
        norm = output.metrics[name]
        assert norm.count.tolist() == [0, 0, 0, 1, 0, 0]
        assert norm.sum[3] == pytest.approx(float(value), rel=1e-5)
        assert not norm.sum[:3].any()


def test_a_call_reports_the_values_that_its_last_step_applied():
    rules = Rules(PLAIN, halving, sgd)
    _, output = jitted_call(start(rules), Batches(DATA, INDICES), np.int32(3), rules=rules)
    assert output.values["optimizer.learning_rate"] == pytest.approx(0.05 * 0.5**2)


POISONED = DATA | {"inputs": np.concatenate([np.full((1, 5), np.inf, np.float32), INPUTS[1:]])}
"""Data whose first row makes any step that uses it diverge."""


def poisoned_indices(step):
    """Returns indices without the first row, except in the batch of `step`."""
    indices = np.where(INDICES == 0, 1, INDICES)
    indices[step, 5] = 0
    return indices


def test_a_call_that_diverges_returns_its_start_and_nothing_revives_it():
    state = start(FULL, FULL_HPARAMS)
    indices = poisoned_indices(3)
    state, output = jitted_call(state, Batches(POISONED, indices), np.int32(2), rules=FULL)
    assert output.live
    assert state.live
    dead, output = jitted_call(state, Batches(POISONED, np.roll(indices, -2, axis=0)), np.int32(4), rules=FULL)
    assert not output.live
    assert_equal(dead, state.replace(live=jnp.array(False)))
    assert np.isfinite(output.metrics["loss"].sum[:1]).all()
    assert not np.isfinite(output.metrics["loss"].sum[1:4]).any()  # identifies the step
    after, output = jitted_call(dead, Batches(DATA, INDICES), np.int32(6), rules=FULL)
    assert not output.live
    assert_equal(after, dead)


def test_a_replay_with_fewer_steps_gives_the_last_finite_state():
    state, indices = start(FULL, FULL_HPARAMS), poisoned_indices(3)
    dead, _ = jitted_call(state, Batches(POISONED, indices), np.int32(6), rules=FULL)
    replayed, output = jitted_call(
        dead.replace(live=jnp.array(True)), Batches(POISONED, indices), np.int32(3), rules=FULL
    )
    assert output.live
    expected, _ = jitted_call(state, Batches(DATA, indices), np.int32(3), rules=FULL)
    assert_equal(replayed, expected)
    assert not jitted_call(state, Batches(POISONED, indices), np.int32(4), rules=FULL)[1].live


def test_parameters_that_overflow_on_the_last_step_are_rejected_though_the_loss_is_finite():
    rules = Rules(PLAIN, Schedule(), sgd)
    state = start(rules, HPARAMS | {"optimizer.learning_rate": 3e38})
    state = state.replace(params=jax.tree.map(lambda leaf: leaf * 1e3, state.params))
    kept, output = jitted_call(state, Batches(DATA, INDICES), np.int32(1), rules=rules)
    assert np.isfinite(output.metrics["loss"].sum[0])
    assert not output.live
    assert_equal(kept.params, state.params)


def two_steps(state, batch, *, rules, axis_name=()):
    """A user's own step: two of ours on the same batch."""
    state, _ = train_step(state, batch, rules=rules, axis_name=axis_name)
    state, metrics = train_step(state, batch, rules=rules, axis_name=axis_name)
    return state, metrics | {"own": Mean(jnp.float32(6.0), jnp.float32(2.0))}


def test_a_call_takes_a_users_own_step():
    rules = Rules(PLAIN, Schedule(), sgd)
    state = start(rules)
    found, output = jitted_call(state, Batches(DATA, INDICES), np.int32(2), rules=rules, step=two_steps)
    for step in (0, 0, 1, 1):
        state, _ = jitted_step(state, rows(INDICES[step]), rules=rules)
    assert_close(found, state)
    assert at(output.metrics["own"], 1).result() == 3.0


@pytest.mark.parametrize("batch_size", [7, 48, 50])
def test_an_evaluation_with_padding_is_a_plain_pass(batch_size):
    rules = Rules(BATCH_NORM, Schedule(), sgd)
    state, _ = jitted_step(start(rules), DATA, rules=rules)
    batches = -(-48 // batch_size)
    order = np.zeros(batches * batch_size, np.int32)
    order[:48] = np.arange(48)
    mask = (np.arange(len(order)) < 48).astype(np.float32)
    rows = Batches(DATA, order.reshape(batches, batch_size), mask.reshape(batches, batch_size))
    found = jitted_eval_call(state, rows, rules=rules)
    variables = {"params": state.params, **state.model_state}
    logits: Any = jax.jit(MLP(3, (8,), norm="batch").apply)(variables, INPUTS)
    assert found["loss"].count == 48
    assert found["loss"].result() == pytest.approx(float(cross_entropy(logits, jnp.asarray(LABELS)).mean()), rel=1e-5)
    assert found["accuracy"].result() == pytest.approx(float((logits.argmax(axis=1) == LABELS).mean()))
    assert set(found) == {"loss", "accuracy"}


def test_the_state_is_arrays_alone_with_hyperparameters_in_float32():
    state = start(FULL, FULL_HPARAMS)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert {(value.dtype, value.shape) for value in state.hparams.values()} == {(jnp.dtype("float32"), ())}
    assert state.key.dtype == jnp.uint32
    assert_equal(state.ema, (state.params, state.model_state))


def test_a_step_that_is_jitted_by_its_user_works_alone_and_in_a_call():
    """With static rules, which therefore must not contain traced values."""
    jitted = jax.jit(train_step, static_argnames=("rules", "axis_name"))
    alone, _ = jitted(start(FULL, FULL_HPARAMS), rows(INDICES[0]), rules=FULL)
    called, output = jitted_call(
        start(FULL, FULL_HPARAMS), Batches(DATA, INDICES), np.int32(1), rules=FULL, step=jitted
    )
    assert_close(called.params, alone.params)
    assert at(output.metrics["norm_gradient"], 0).count == 1.0


def test_a_step_without_norms_of_its_own_is_called_without_the_flag():
    def plain(state, batch, *, rules, axis_name):
        return train_step(state, batch, rules=rules, axis_name=axis_name, measure_norms=False)

    state, _ = jitted_call(start(FULL, FULL_HPARAMS), Batches(DATA, INDICES), np.int32(2), rules=FULL, step=plain)
    assert state.step == 2


def test_batches_stacked_on_the_host_give_the_same_bits_as_rows_of_whole_data():
    """As in streaming: k batches are stacked as data, and the rows count through them."""
    whole, _ = jitted_call(start(FULL, FULL_HPARAMS), Batches(DATA, INDICES), np.int32(6), rules=FULL)
    stacked = {name: array[np.ravel(INDICES)] for name, array in DATA.items()}
    counting = np.arange(INDICES.size, dtype=np.int32).reshape(INDICES.shape)
    streamed, _ = jitted_call(start(FULL, FULL_HPARAMS), Batches(stacked, counting), np.int32(6), rules=FULL)
    assert state_digest(streamed) == state_digest(whole)
