"""Every public optimizer of optax trains the digits by its import path; its other functions are refused."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import tiny

from jaxtrain.core.batches import Batches
from jaxtrain.core.extra_arguments import extra_arguments
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Batch, Rules, Task, init_state
from jaxtrain.core.steps import train_call, train_step
from jaxtrain.core.trees import state_digest
from jaxtrain.errors import ConfigError
from jaxtrain.optimizers import OPTIMIZERS
from jaxtrain.optimizers.wrappers import wrap
from jaxtrain.parallel.mesh import compile_train_call
from jaxtrain.parallel.population import Population
from jaxtrain.training.experiment import Experiment, build

STEPS = 200
DIGITS = build(tiny())
PLAIN = {
    "schedule": {},
    "train.ema": None,
    "model.dropout": 0.0,
    "model.hidden": (),
    "train.duration": f"{STEPS} steps",
}

RATES = {
    **dict.fromkeys(["optimistic_gradient_descent", "noisy_sgd", "sgd"], 0.1),
    **dict.fromkeys(["fromage", "lamb", "radam", "contrib.muon"], 0.03),
    **{"adadelta": 1.0, "adafactor": 0.03, "adagrad": 0.1, "lars": 3.0, "sm3": 0.1},
    **{"contrib.dowg": 0.3, "contrib.schedule_free_adamw": 0.03, "contrib.simplified_ademamix": 1e-3},
}
WITHOUT_RATE = ["lbfgs", "polyak_sgd"]
KNOWN = [
    *["adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad"],
    *["fromage", "lamb", "lars", "lbfgs", "lion", "noisy_sgd", "novograd", "optimistic_adam", "optimistic_adam_v2"],
    *["optimistic_gradient_descent", "polyak_sgd", "radam", "rmsprop", "rprop", "sgd", "sign_sgd", "signum", "sm3"],
    *["yogi", "contrib.acprop", "contrib.ademamix", "contrib.adopt", "contrib.cocob", "contrib.dadapt_adamw"],
    *["contrib.dog", "contrib.dowg", "contrib.galore", "contrib.madgrad", "contrib.momo", "contrib.momo_adam"],
    *["contrib.muon", "contrib.prodigy", "contrib.schedule_free_adamw", "contrib.schedule_free_sgd"],
    *["contrib.simplified_ademamix", "contrib.sophia"],
]
"""Found by running all public functions of optax: these are its optimizers."""


def public(module: Any, prefix: str = "") -> dict[str, Any]:
    functions = inspect.getmembers(module, inspect.isfunction)
    return {prefix + name: function for name, function in functions if not name.startswith("_")}


FUNCTIONS = public(optax) | public(optax.contrib, "contrib.")


def section(name: str) -> dict[str, Any]:
    knobs = OPTIMIZERS.knobs(f"optax:{name}")
    needs_rate = "learning_rate" in knobs and knobs["learning_rate"].default in (inspect.Parameter.empty, None)
    rate = RATES.get(name, 0.01 if needs_rate and name not in WITHOUT_RATE else None)
    return {"name": f"optax:{name}"} | ({} if rate is None else {"learning_rate": rate})


@pytest.mark.filterwarnings("ignore:Specifying a key:UserWarning", "ignore:.*optimistic_adam:DeprecationWarning")
@pytest.mark.one_fast_of(9)
@pytest.mark.parametrize("name", KNOWN)
def test_every_optimizer_of_optax_trains_the_digits(name: str):
    """The loss of mini-batches falls by a fifth within 200 steps, and the state can be saved."""
    batch = {"data.batch_size": DIGITS.dataset.sizes["train"]} if name == "rprop" else {}
    found = build(tiny(PLAIN | batch | {"optimizer": section(name)}), beside=DIGITS)
    state, output = compile_train_call(found.rules, found.mesh, "mesh")(
        found.init(), found.batches(0, STEPS, STEPS), STEPS
    )
    assert bool(state.live)
    losses = np.asarray(output.metrics["loss"].sum / output.metrics["loss"].count)
    assert losses[-20:].mean() < 0.8 * losses[:5].mean()
    assert len(state_digest(jax.device_get(state))) > 8


def test_every_other_public_function_of_optax_is_refused_in_one_line():
    """A function that a later version of optax adds is in the table or refused, or fails this test."""
    others = [name for name in FUNCTIONS if name not in KNOWN]
    assert len(others) > 100
    for name in others:
        with pytest.raises(ConfigError) as error:
            tiny({"optimizer": {"name": f"optax:{name}"}})
        assert error.value.key == "optimizer.name", name
        assert "an optimizer" in error.value.expected
        assert error.value.hint


def test_adadelta_of_optax_without_a_rate_is_refused_since_it_climbs():
    weights = jnp.ones(2)
    moved: Any = optax.adadelta().update(weights, optax.adadelta().init(weights), weights)[0]
    assert (moved > 0).all()
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate: got None; expected a number"):
        build(tiny(PLAIN | {"optimizer": {"name": "optax:adadelta"}}), beside=DIGITS)


ASKING = ["lbfgs", "polyak_sgd", "contrib.momo_adam", "contrib.sophia"]


@functools.cache
def trained(name: str, **more: Any) -> tuple[Experiment, Any]:
    """Returns (experiment, state) after ten steps."""
    given = {key.replace("_of_", "."): value for key, value in more.items()}
    found = build(
        tiny(PLAIN | given | {"optimizer": section(name)}), beside=None if "parallel_of_mesh" in more else DIGITS
    )
    call = compile_train_call(found.rules, found.mesh, given.get("parallel.backend", "mesh"))
    return found, jax.device_get(call(found.init(), found.batches(0, 10, 10), 10)[0])


def distance(state: Any, reference: Any) -> float:
    flat, expected = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(s.params)]) for s in (state, reference))
    return float(jnp.linalg.norm(flat - expected) / jnp.linalg.norm(expected))


CUT: dict[str, dict[str, Any]] = {
    "accumulate": {"train_of_accumulate": 4},
    "mesh": {"parallel_of_mesh": 4},
    "pmap": {"parallel_of_mesh": 4, "parallel_of_backend": "pmap"},
    "pmap_accumulate": {"parallel_of_mesh": 2, "parallel_of_backend": "pmap", "train_of_accumulate": 2},
}
CASES = [
    *((way, name) for way in ("accumulate", "mesh") for name in ASKING),
    *(("pmap", "polyak_sgd"), ("pmap_accumulate", "lbfgs")),
]


@pytest.mark.one_fast_of(5)
@pytest.mark.parametrize(("way", "name"), CASES)
def test_micro_batches_and_devices_see_the_loss_of_the_whole_batch(way: str, name: str):
    more = CUT[way]
    assert distance(trained(name, **more)[1], trained(name)[1]) < 1e-4


@pytest.mark.one_fast_of(4)
@pytest.mark.unfused
@pytest.mark.parametrize("name", ASKING[::-1])  # the dear one is slow
def test_lanes_equal_solo_runs(name: str):
    """To the bit where lanes run one after another, within 1e-4 where they are vmapped."""
    found, solo = trained.__wrapped__(name)  # anew: other tests train quickly compiled programs
    for width in (1, 2):
        population = Population(found.rules, found.mesh, lanes=2, width=width)
        states = population.init([0, 1], found.hparams, jax.device_get(found.batches(0, 1, 1).example))
        states, _ = population.call(states, found.batches(0, 10, 10), 10)
        lane = population.fetch_lane(population.fetch(states), 0)
        assert distance(lane, solo) <= (0.0 if width == 1 else 1e-4)


def quadratic(params: Any) -> jax.Array:
    scaled = zip((1.0, 30.0), jax.tree.leaves(params), strict=True)
    return jnp.concatenate([scale * (leaf - 1.0) ** 2 for scale, leaf in scaled]).sum()


def rules_of(optimizer: Any, accumulate: int = 1) -> Rules:
    """Rules that fit a line to a batch, with the optimizer as it is given."""

    def loss(params: Any, model_state: Any, batch: Batch, *_: Any) -> Any:
        errors = (batch["inputs"] @ params["w"] + params["b"] - batch["targets"]) ** 2
        return errors.mean(), (model_state, {"loss": Mean(errors.sum(), jnp.float32(len(errors)))})

    def init(*_: Any) -> tuple[Any, Any]:
        return {"w": jnp.array([0.3, -1.2, 2.0]), "b": jnp.zeros(1)}, {}

    return Rules(Task(init, loss, lambda *_: None), lambda _, hparams: hparams, lambda _: optimizer, accumulate)


INPUTS = np.random.default_rng(0).normal(size=(5, 64, 3)).astype(np.float32)
TARGETS = (INPUTS @ np.array([1.0, -2.0, 0.5], np.float32) + 0.3).astype(np.float32)


@pytest.mark.slow
@pytest.mark.optimized
def test_lbfgs_is_the_loop_by_hand_to_the_bit():
    """Five steps, each on another batch."""
    optimizer, rules = optax.lbfgs(), rules_of(optax.lbfgs())
    state = init_state(jax.random.key(0), {}, {"train.total_steps": 5}, rules=rules)
    step = jax.jit(functools.partial(train_step, rules=rules))

    @jax.jit
    def by_hand(params: Any, opt_state: Any, batch: Batch) -> tuple[Any, Any]:
        def value_fn(params: Any) -> jax.Array:
            return ((batch["inputs"] @ params["w"] + params["b"] - batch["targets"]) ** 2).mean()

        value, grad = jax.value_and_grad(value_fn)(params)
        updates, opt_state = optimizer.update(grad, opt_state, params, value=value, grad=grad, value_fn=value_fn)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = state.params, optimizer.init(state.params)
    for inputs, targets in zip(INPUTS, TARGETS, strict=True):
        batch = {"inputs": inputs, "targets": targets}
        state, _ = step(state, batch)
        params, opt_state = by_hand(params, opt_state, batch)
        jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), (params, opt_state))
    np.testing.assert_allclose(state.params["w"], [1.0, -2.0, 0.5], atol=0.05)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_an_optimizer_that_asks_for_nothing_has_the_program_of_one_that_is_given_nothing(accumulate: int):
    """`optax.adam` is a chain, which accepts any argument; a bare pair of functions accepts none."""
    adam = optax.adam(0.1)
    bare = optax.GradientTransformation(
        adam.init, lambda updates, state, params=None: adam.update(updates, state, params)
    )

    def lowered(optimizer: Any) -> str:
        rules = rules_of(optimizer, accumulate)
        state = init_state(jax.random.key(0), {}, {"train.total_steps": 5}, rules=rules)
        call = jax.shard_map(
            functools.partial(train_call, rules=rules, axis_name="batch"),
            mesh=jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2]),
            in_specs=(jax.P(), Batches(jax.P(), jax.P(None, "batch")), jax.P()),
            out_specs=jax.P(),
            check_vma=False,
        )
        batches = Batches({"inputs": INPUTS[0], "targets": TARGETS[0]}, np.zeros((5, 16), np.int32))
        return jax.jit(call).lower(state, batches, np.int32(5)).as_text()

    assert lowered(adam) == lowered(bare)
    # Two arrays of gradients, sum and count of the loss; the mean loss itself only where it is asked for.
    assert lowered(adam).count("stablehlo.all_reduce") == 4
    assert lowered(optax.polyak_sgd()).count("stablehlo.all_reduce") == 5


WRAPPERS = {
    "clip": ({"clip_norm": 1e6}, {}),
    "scaled": ({"scaled": "a", "scaled_by": 1.0}, {}),
    "frozen": ({"frozen": "a"}, {"a"}),
    "all": ({"frozen": "a", "clip_value": 1e6, "clip_adaptive": 1e6, "scaled": "b", "scaled_by": 1.0}, {"a"}),
}


@pytest.mark.one_fast_of(5)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("make", [optax.lbfgs, optax.polyak_sgd, functools.partial(optax.contrib.sophia, 0.1)])
def test_wrappers_pass_the_arguments_on_and_freezing_optimizes_the_rest_alone(make: Any, wrapper: str):
    knobs, frozen = WRAPPERS[wrapper]
    start = {"a": jnp.array([3.0, -1.0]), "b": jnp.array([0.5, 2.0, 7.0])}
    fixed = {name: leaf for name, leaf in start.items() if name in frozen}

    def descend(optimizer: Any, params: Any, value_fn: Any) -> Any:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            value, grad = jax.value_and_grad(value_fn)(params)
            extra = extra_arguments(optimizer.update, value, grad, value_fn)
            updates, state = optimizer.update(grad, state, params, **extra)
            return (optax.apply_updates(params, updates), state), None

        with jax.numpy_dtype_promotion("standard"):  # optax mixes types
            return jax.lax.scan(step, (params, optimizer.init(params)), length=3)[0][0]

    moving = {name: leaf for name, leaf in start.items() if name not in frozen}
    expected = descend(make(), moving, lambda params: quadratic(params | fixed)) | fixed
    found = descend(wrap(make(), **knobs), start, quadratic)
    for name, leaf in expected.items():
        np.testing.assert_allclose(found[name], leaf, atol=1e-3)


def test_a_transformation_gets_only_what_its_signature_names():
    seen: list[set[str]] = []

    def update(updates: Any, state: Any, params: Any = None, *, value: Any = None, grad: Any = None) -> Any:
        seen.append({name for name, given in (("value", value), ("grad", grad)) if given is not None})
        return jax.tree.map(lambda leaf: -0.1 * leaf, updates), state

    rules = rules_of(optax.GradientTransformationExtraArgs(optax.identity().init, update))
    state = init_state(jax.random.key(0), {}, {"train.total_steps": 5}, rules=rules)
    train_step(state, {"inputs": INPUTS[0], "targets": TARGETS[0]}, rules=rules)
    assert seen == [{"value", "grad"}]
