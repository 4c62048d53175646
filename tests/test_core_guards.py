"""Guards of calls and of steps give the same bits; a guarded step keeps the last finite state and copies nothing."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_divergence import FIRST, LATE, SOON
from test_steps import (
    BATCH_NORM,
    DATA,
    FULL,
    FULL_HPARAMS,
    HPARAMS,
    INDICES,
    PLAIN,
    POISONED,
    adam,
    assert_close,
    assert_equal,
    jitted_call,
    poisoned_indices,
    sgd,
    start,
    two_steps,
)
from tiny_runs import Interrupting, tiny

from jaxtrain.core.batches import Batches
from jaxtrain.core.state import Rules, init_state
from jaxtrain.core.steps import train_call, train_step
from jaxtrain.core.trees import tree_bytes
from jaxtrain.models.mlp import MLP
from jaxtrain.optimizers.schedules import Schedule
from jaxtrain.parallel.memory import plan_memory
from jaxtrain.parallel.mesh import compile_train_call, device_mesh, replicate
from jaxtrain.parallel.population import Population
from jaxtrain.tasks.linen import linen_task
from jaxtrain.tasks.losses.classification import cross_entropy
from jaxtrain.training import guard_rule
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate

pytestmark = pytest.mark.unfused
ACCUMULATED = Rules(PLAIN, Schedule(), adam, accumulate=4)


def guarded(rules: Rules) -> Rules:
    return rules._replace(guard_steps=True)


def both(rules: Rules, hparams: Any, batches: Batches, steps: int, **options: Any) -> tuple[Any, Any]:
    """Returns (state, output) of the same call, guarded as a whole and by steps."""
    return tuple(
        jitted_call(start(own, hparams), batches, np.int32(steps), rules=own, **options)
        for own in (rules, guarded(rules))
    )


@pytest.mark.parametrize(("rules", "hparams"), [(FULL, FULL_HPARAMS), (ACCUMULATED, HPARAMS)], ids=["full", "micro"])
def test_both_guards_give_the_same_state_and_metrics_to_the_bit(rules: Rules, hparams: Any):
    (state, output), (found, steps_output) = both(rules, hparams, Batches(DATA, INDICES), 5)
    assert_equal(found, state)
    norms = {name for name in output.metrics if name.startswith("norm_")}
    assert norms == {"norm_gradient", "norm_update", "norm_parameter"}
    for name, metric in output.metrics.items():
        compare = assert_close if name in norms else assert_equal
        compare(steps_output.metrics[name], metric)
    assert output.metrics["norm_update"].sum[4] > 0
    assert_equal(steps_output.values, output.values)
    assert (output.kept, steps_output.kept, steps_output.tried) == (5, 5, 5)


def test_a_guarded_step_that_diverges_leaves_the_last_finite_state_and_nothing_revives_it():
    indices = poisoned_indices(3)
    (dead, _), (found, output) = both(FULL, FULL_HPARAMS, Batches(POISONED, indices), 6)
    expected, before = jitted_call(
        dead.replace(live=jnp.array(True)), Batches(POISONED, indices), np.int32(3), rules=FULL
    )
    assert_equal(found, expected.replace(live=jnp.array(False)))
    assert (output.kept, output.tried, bool(output.live)) == (3, 4, False)
    assert_equal(output.metrics["loss"].sum[:3], before.metrics["loss"].sum[:3])
    assert np.isnan(output.metrics["loss"].sum[3:]).all()
    after, later = jitted_call(found, Batches(DATA, INDICES), np.int32(6), rules=guarded(FULL))
    assert_equal(after, found)
    assert (later.kept, bool(later.live)) == (0, False)
    assert not later.metrics["loss"].count.any()


def test_an_update_that_overflows_is_rejected_though_loss_and_gradients_are_finite():
    rules = guarded(Rules(PLAIN, Schedule(), sgd))
    state = start(rules, HPARAMS | {"optimizer.learning_rate": 3e38})
    state = state.replace(params=jax.tree.map(lambda leaf: leaf * 1e3, state.params))
    kept, output = jitted_call(state, Batches(DATA, INDICES), np.int32(1), rules=rules)
    assert np.isfinite(output.metrics["loss"].sum[0])
    assert np.isfinite(output.metrics["norm_gradient"].sum[0])
    assert not output.live
    assert_equal(kept, state.replace(live=jnp.array(False)))


def test_a_users_own_step_that_does_not_judge_itself_is_guarded_by_calls():
    (state, _), (found, output) = both(
        Rules(PLAIN, Schedule(), sgd), HPARAMS, Batches(POISONED, poisoned_indices(1)), 3, step=two_steps
    )
    assert_equal(found, state)
    assert found.step == 0
    assert (output.kept, output.tried) == (0, 3)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize("backend", ["mesh", "pmap"])
def test_devices_agree_on_the_step_that_diverges(backend: str):
    mesh = device_mesh(2)
    rules = Rules(BATCH_NORM, Schedule(), adam)
    states = []
    for own, steps in ((guarded(rules), 6), (rules, 3)):
        call = compile_train_call(own, mesh, backend)
        batches = Batches(replicate(POISONED, mesh), poisoned_indices(3))
        states.append(call(replicate(start(own), mesh), batches, steps)[0])
    assert not states[0].live
    assert_equal(states[0].replace(live=states[1].live), states[1])


@pytest.mark.parametrize("width", [1, 3])
def test_lanes_end_at_their_own_last_finite_steps(width: int):
    rules = guarded(Rules(PLAIN, Schedule(), sgd))
    mesh = device_mesh(1)
    rates = [0.05, 3e38, 0.1]
    population = Population(rules, mesh, 3, width)
    states = population.init([7, 7, 7], HPARAMS | {"optimizer.learning_rate": rates}, DATA)
    states, output = population.call(states, Batches(replicate(DATA, mesh), INDICES), 6)
    live, kept, step = population.fetch((output.live, output.kept, states.step))
    assert live.tolist() == [True, False, True]
    assert kept.tolist() == step.tolist()
    assert kept[1] < 2
    assert kept[0] == 6
    alone = start(rules)
    alone, _ = jitted_call(alone, Batches(DATA, INDICES), np.int32(6), rules=rules)
    assert_close(population.fetch_lane(states, 0).params, jax.device_get(alone.params))


# The memory of a call


def planned_bytes(function: Any, *arguments: Any) -> int:
    planned = plan_memory(jax.jit(function, donate_argnums=0).lower(*arguments).compile())
    assert planned is not None
    return planned.total


@pytest.mark.optimized
def test_a_call_of_guarded_steps_plans_at_most_1_3_times_the_memory_of_a_step():
    task = linen_task(
        lambda values: MLP(10, (512, 512)), lambda values, outputs, targets: cross_entropy(outputs, targets), ()
    )
    rules = Rules(task, Schedule(), lambda values: optax.adamw(1e-3))
    batches = Batches(
        {"inputs": jax.ShapeDtypeStruct((64, 512), np.float32), "targets": jax.ShapeDtypeStruct((64,), np.int32)},
        jax.ShapeDtypeStruct((4, 16), np.int32),
    )
    state = jax.eval_shape(
        functools.partial(init_state, rules=rules), jax.random.key(0), batches.example, {"train.total_steps": 6.0}
    )
    batch = jax.eval_shape(lambda batches: batches.take(0), batches)
    step = planned_bytes(functools.partial(train_step, rules=rules, measure_norms=False), state, batch)
    of_steps, of_call = (
        planned_bytes(functools.partial(train_call, rules=own), state, batches, np.int32(1))
        for own in (guarded(rules), rules)
    )
    assert of_steps < 1.3 * step
    assert of_call > 1.7 * step


# Whole runs


def run_of(overrides: Any, workdir: Path, **options: Any) -> Any:
    return train_and_evaluate(tiny(overrides), workdir, quiet=True, **options)


THREE = {"train.seeds": 3}


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize("given", [LATE, THREE, THREE | LATE, {}, SOON, FIRST])
def test_runs_with_either_guard_end_with_the_same_state_and_message(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The one with guarded steps, as of a large state, is interrupted and resumed."""
    expected = run_of(given, tmp_path / "calls")
    monkeypatch.setattr(guard_rule, "LARGE_STATE", 0)
    assert build(tiny(given)).rules.guard_steps
    run_of(given, tmp_path / "steps", trackers=[Interrupting(20)])
    found = run_of(given, tmp_path / "steps")
    kept = ("status", "step", "state_digest", "reason", "best", "test", "seeds")
    assert {name: getattr(found, name) for name in kept} == {name: getattr(expected, name) for name in kept}
    assert (found.status == "done") == ("optimizer.momentum" not in given)
    # A run that has ended is read from its result, where nan is null.
    ours, theirs = (np.nan if (loss := of.last["train"]["loss"]) is None else loss for of in (found, expected))
    np.testing.assert_equal(ours, theirs)


@pytest.mark.parametrize(("optimizer", "expected"), [("adamw", True), ("muon", False)])
def test_steps_are_guarded_where_the_state_is_large_and_its_update_cheap(optimizer: str, expected: bool):
    """Muon multiplies matrices in its update, which a guard of steps computes twice."""
    large = {"model.hidden": (3000, 2000), "optimizer.name": optimizer}
    assert not build(tiny({"optimizer.name": optimizer})).rules.guard_steps
    found = build(tiny(large))
    assert tree_bytes(found.state_shapes()) > guard_rule.LARGE_STATE
    assert found.rules.guard_steps == expected
