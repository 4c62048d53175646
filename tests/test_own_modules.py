"""Tasks of models from other libraries: their own numbers, and runs, lanes, range tests and searches as of any task."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_modules
import pytest
from flax import nnx
from tiny_runs import Interrupting, outcome, result_of, tiny

from jaxtrain import Population, Task, build, lr_range_test, nnx_task, run_search, train_and_evaluate
from jaxtrain.core.state import Rules, init_state
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import state_digest
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.mesh import compile_init, compile_train_call, device_mesh

TASKS = [
    "nnx_net",
    "plain_functions",
    "tree_with_state",
    pytest.param("equinox_net", marks=pytest.mark.needs("equinox")),
]
INPUTS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
TARGETS = np.arange(12) % 3


@pytest.fixture(autouse=True)
def promotion() -> Iterator[None]:
    """Lets JAX broadcast and convert as it does by default: the modules are a user's."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def config_of(task: str, **overrides: object):
    given = {"task.name": f"own_modules:{task}", "train.ema": None}
    return tiny({**given, **{name.replace("__", "."): value for name, value in overrides.items()}})


def cross_entropy(values, predictions, targets):
    return optax.softmax_cross_entropy_with_integer_labels(predictions, targets)


class Small(nnx.Module):
    """A linear layer behind a batch norm."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.linear = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        return self.linear(self.norm(inputs))


def test_a_step_of_an_nnx_module_is_that_of_nnx_itself():
    task = nnx_task(lambda values, rngs: Small(rngs), cross_entropy)
    rules = Rules(
        task, lambda step, hparams: dict(hparams), lambda values: optax.sgd(values["optimizer.learning_rate"]), 1
    )
    batch = {"inputs": INPUTS, "targets": TARGETS}
    state = init_state(jax.random.key(0), batch, {"optimizer.learning_rate": 0.1}, rules=rules)
    module = Small(nnx.Rngs(jax.random.key(0)))
    assert set(state.params) == {"linear/bias", "linear/kernel", "norm/bias", "norm/scale"}
    module.linear.kernel[...] = state.params["linear/kernel"]
    stepped, metrics = train_step(state, batch, rules=rules)

    def loss(module: Small) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(module(jnp.asarray(INPUTS)), TARGETS).mean()

    module.train()
    value, gradients = nnx.value_and_grad(loss)(module)
    np.testing.assert_allclose(metrics["loss"].result(), value, rtol=1e-6)
    moved = module.linear.kernel[...] - 0.1 * gradients["linear"]["kernel"][...]
    np.testing.assert_allclose(stepped.params["linear/kernel"], moved, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(stepped.model_state["state"]["norm/mean"], module.norm.mean[...], rtol=1e-6)
    np.testing.assert_allclose(stepped.model_state["state"]["norm/mean"], 0.1 * INPUTS.mean(axis=0), rtol=1e-5)


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize("task", TASKS)
def test_a_run_learns_and_resumes_to_the_bit(task, tmp_path):
    config = config_of(task, optimizer__learning_rate=0.02)
    train_and_evaluate(config, tmp_path / "whole", quiet=True)
    assert result_of(tmp_path / "whole")["test"]["accuracy"] > 0.5
    train_and_evaluate(config, tmp_path / "parts", quiet=True, trackers=[Interrupting(20)])
    assert result_of(tmp_path / "parts")["status"] == "interrupted"
    train_and_evaluate(config, tmp_path / "parts", quiet=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.bits
@pytest.mark.parametrize("task", TASKS)
def test_a_lane_is_its_solo_run_to_the_bit_and_the_rate_of_dropout_an_input_of_the_program(task):
    found = build(config_of(task))
    rates = np.asarray([0.1, 0.4], np.float32)
    assert not any("rate" in path for path in found.init().params), "a hyperparameter is not trained"
    population = Population(found.rules, found.mesh, lanes=2)
    states = population.init([0, 0], {**found.hparams, "task.rate": rates}, found.example)
    states, _ = population.call(states, found.batches(0, 5, 5), 5)
    digests = [state_digest(population.fetch_lane(states, lane)) for lane in range(2)]
    one = device_mesh(1)
    for rate, digest in zip(rates, digests, strict=True):
        hparams = {**found.hparams, "task.rate": rate}
        state = compile_init(found.rules, one)(jax.random.key(0), found.example, hparams)
        state, _ = compile_train_call(found.rules, one, "mesh")(state, found.batches(0, 5, 5), 5)
        assert state_digest(jax.device_get(state)) == digest
    assert digests[0] != digests[1]


@pytest.mark.slow
def test_a_range_test_and_a_search_train_them(tmp_path):
    short = {"lr_range.rates": 5, "lr_range.seeds": 1, "lr_range.steps": "8 steps"}
    for task in ("nnx_net", "tree_with_state"):
        config = config_of(task, **short, **{"train.duration": "20 steps"})
        assert np.isfinite(lr_range_test(config, quiet=True).losses).any()
    searched = config_of("nnx_net", **{"train.duration": "20 steps", "search.space.task.rate": ("uniform", 0.0, 0.5)})
    searched["search"] |= {"trials": 3, "compare_seeds": 0}
    assert run_search(searched, tmp_path, quiet=True).status == "done"


def test_integers_of_a_model_state_stay_integers_under_accumulation():
    found = build(config_of("tree_with_state", train__accumulate=2))
    state, _ = train_step(found.init(), found.batches(0, 1, 1).take(0), rules=found.rules)
    assert state.model_state["state"]["calls"].dtype == jnp.int32
    assert int(state.model_state["state"]["calls"]) == 1


def test_a_loss_that_is_not_one_number_an_example_is_one_line():
    with pytest.raises(ConfigError, match=r"loss\.name: got "):
        build(tiny({"task.name": f"{__name__}:mean_loss"}))


def mean_loss(model, loss, info) -> Task:
    def mean(values, predictions, targets):
        return loss(values, predictions, targets).mean()

    return own_modules.nnx_net(model, mean, info)
