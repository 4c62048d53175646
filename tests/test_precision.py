"""Computation in bfloat16 with float32 states and metrics, and the precision of matrix products."""

import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import Interrupting, outcome, tiny

from jaxtrain import load_run
from jaxtrain.commands.evaluate import evaluate
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.identity import digest
from jaxtrain.config.resolve import resolve_config
from jaxtrain.core.precision import InBfloat16
from jaxtrain.core.state import TrainState, init_state
from jaxtrain.core.steps import eval_step, train_step
from jaxtrain.core.trees import named_leaves, state_digest
from jaxtrain.data.info import describe
from jaxtrain.errors import ConfigError
from jaxtrain.models.convolution import Conv
from jaxtrain.models.layers import Dropout
from jaxtrain.parallel.mesh import compile_train_call
from jaxtrain.parallel.population import Population
from jaxtrain.tasks import make_task
from jaxtrain.training.experiment import Experiment, build, make_rules
from jaxtrain.training.train import train_and_evaluate

pytestmark = pytest.mark.unfused
BFLOAT16 = {"train.precision": "bfloat16"}
EVERYTHING = {
    "model.norm": "batch",
    "train.ema": 0.9,
    "train.duration": "20 steps",
    "data.batch_size": 32,
}
"""Options that mix dtypes in a step, together with a traced dropout rate."""


@functools.cache
def experiment(
    precision: str,
    products: str = "default",
    devices: int = 1,
    name: str = "mlp",
    dropout: float | None = 0.1,
) -> Experiment:
    model = {"mlp": {"name": "mlp", "hidden": (32,)}, "cnn": {"name": "cnn", "features": (4,), "hidden": (8,)}}[name]
    chosen = {"train.precision": precision, "train.matmul_precision": products, "parallel.mesh": devices}
    given = EVERYTHING | chosen | {"model.dropout": dropout}
    return build(resolve_config({"data": {"name": "digits"}, "model": model}, given).config)


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yields the equations of a jaxpr and of all jaxprs nested in it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from equations(getattr(inner, "jaxpr", inner))


def products(found: Experiment, step: Any = train_step) -> list[Any]:
    """Returns the matrix products of a step."""
    batch = {name: array[:32] for name, array in found.dataset.split("train").items()}
    jaxpr = jax.make_jaxpr(functools.partial(step, rules=found.rules))(found.state_shapes(), batch)
    return [equation for equation in equations(jaxpr) if equation.primitive.name == "dot_general"]


def types(found: list[Any]) -> set[str]:
    return {str(variable.aval.dtype) for product in found for variable in (*product.invars, *product.outvars)}


@functools.cache
def trained(found: Experiment, backend: str = "mesh") -> tuple[TrainState, Any]:
    call = compile_train_call(found.rules, found.mesh, backend)
    return jax.device_get(call(found.init(), found.batches(0, 20, 20), 20))


# What is bfloat16 and what is not


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_products_of_a_step_and_their_gradients_are_in_the_type_that_was_chosen(name: str):
    for step in (train_step, eval_step):
        plain, rounded = (products(experiment(chosen, name=name), step) for chosen in ("float32", "bfloat16"))
        assert types(plain) == {"float32"}
        assert types(rounded) == {"bfloat16"}
        assert len(rounded) == len(plain) >= 2


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_state_losses_and_metrics_are_float32(name: str, accumulate: int):
    found = experiment("bfloat16", name=name)
    state, batch = found.state_shapes(), {name: array[:32] for name, array in found.dataset.split("train").items()}
    rules = found.rules._replace(accumulate=accumulate)
    after = jax.eval_shape(functools.partial(train_step, rules=rules), state, batch)
    evaluated = jax.eval_shape(functools.partial(eval_step, rules=rules), state, batch)
    kinds = {path: str(leaf.dtype) for path, leaf in named_leaves((*after, evaluated))}
    assert set(kinds.values()) == {"float32", "int32", "uint32", "bool"}
    assert {path: str(leaf.dtype) for path, leaf in named_leaves((state,))}.items() <= kinds.items()
    assert any("batch_stats" in path for path in kinds)
    assert any(path.startswith("0/ema") for path in kinds)


@pytest.mark.slow
def test_initial_weights_are_the_same_and_the_loss_differs_by_rounding_alone():
    plain, rounded = (experiment(chosen, dropout=None) for chosen in ("float32", "bfloat16"))
    assert state_digest(jax.device_get(plain.init())) == state_digest(jax.device_get(rounded.init()))
    first, second = (trained(found)[1].metrics["loss"] for found in (plain, rounded))
    losses = [mean.sum / mean.count for mean in (first, second)]
    np.testing.assert_allclose(*losses, rtol=0.03)
    assert np.all(losses[0] != losses[1])


class Gain(nn.Module):
    """A user's model: a float knob times an affine map, with a running statistic stored as it is computed."""

    outputs: int
    gain: float = 2.0

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        seen = self.variable("batch_stats", "seen", jnp.zeros, (), jnp.float32)
        outputs = Conv(self.outputs)(inputs)
        if not self.is_initializing() and train:
            seen.value = outputs.mean()
        return self.gain * outputs


@pytest.mark.slow
def test_a_module_of_ones_own_needs_to_know_nothing_of_types():
    images = np.random.default_rng(0).random((32, 8, 8, 1)).astype(np.float32)
    batch = {"inputs": images, "targets": (images[..., 0] > 0.5).astype(np.int32)}
    given = {"task": {"name": "segmentation"}, "model": {"name": f"{__name__}:Gain"}, "loss": "dice"}
    config = resolve_config(given, BFLOAT16).config
    rules = make_rules(config, describe(images, batch["targets"], None, 2))
    hparams = hyperparameters(config) | {"train.total_steps": 9.0}
    state = jax.jit(functools.partial(init_state, rules=rules))(jax.random.key(0), batch, hparams)
    moved, metrics = jax.jit(functools.partial(train_step, rules=rules))(state, batch)
    assert moved.model_state["batch_stats"]["seen"].dtype == jnp.float32
    assert moved.model_state["batch_stats"]["seen"] != 0
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {np.dtype("float32")}
    shown = rules.task.predict(state.params, state.model_state, images, rules.schedule(state.step, state.hparams))
    assert (shown.dtype, shown.shape) == (jnp.float32, images.shape[:3])


def test_integers_keys_and_words_pass_through():
    class Takes(nn.Module):
        @nn.compact
        def __call__(self, floats: jax.Array, labels: jax.Array, word: str, train: bool) -> Any:
            weight = self.param("weight", nn.initializers.ones, ())
            assert (floats.dtype, weight.dtype, labels.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.int32)
            return {"sum": floats + weight, "labels": labels, "word": word, "train": train}

    module: Any = InBfloat16(Takes())
    floats, labels = jnp.ones(2), jnp.ones(2, jnp.int32)
    found = module.apply({"params": {"weight": jnp.ones(())}}, floats, labels, "word", True)
    assert (found["sum"].dtype, found["labels"].dtype, found["word"]) == (jnp.float32, jnp.int32, "word")
    assert found["train"] is True


# It is the same wherever it runs


@pytest.mark.bits
def test_a_lane_is_its_solo_run_to_the_bit():
    found = experiment("bfloat16")
    population = Population(found.rules, found.mesh, lanes=2)
    states = population.init([0, 1], found.hparams, found.example)
    states, _ = population.call(states, found.batches(0, 20, 20), 20)
    assert state_digest(population.fetch_lane(states, 0)) == state_digest(trained(found)[0])
    assert state_digest(population.fetch_lane(states, 0)) != state_digest(population.fetch_lane(states, 1))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["mesh", "pmap"])
def test_losses_on_two_devices_are_those_of_one_up_to_rounding(backend: str):
    one, two = trained(experiment("bfloat16")), trained(experiment("bfloat16", devices=2), backend)
    first, second = (output.metrics["loss"].sum / output.metrics["loss"].count for _, output in (one, two))
    np.testing.assert_allclose(first[0], second[0], rtol=0.2 if backend == "pmap" else 2e-3)  # pmap draws its dropout
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(two[0])} == {"float32", "int32", "uint32", "bool"}


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tmp_path):
    config = tiny(BFLOAT16)
    train_and_evaluate(config, tmp_path / "whole", quiet=True)
    stopped = train_and_evaluate(config, tmp_path / "cut", trackers=[Interrupting(20)], quiet=True)
    assert stopped.status == "interrupted"
    assert train_and_evaluate(config, tmp_path / "cut", quiet=True).status == "done"
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_digits_are_learnt_and_a_run_that_is_opened_again_computes_alike(tmp_path):
    given = {"data": {"name": "digits"}, "optimizer": {"name": "adamw", "learning_rate": 3e-3}}
    config = resolve_config(given, BFLOAT16 | {"train.duration": "25 epochs", "parallel.mesh": 1}).config
    result = train_and_evaluate(config, tmp_path, quiet=True)
    assert result.test is not None
    assert result.test["accuracy"] >= 0.95
    run = load_run(tmp_path)
    assert run.config["train"]["precision"] == "bfloat16"
    test = build(config).dataset.split("test")
    logits = run.predict(test["inputs"])
    assert logits.dtype == np.float32
    assert np.mean(logits.argmax(axis=1) == test["targets"]) == pytest.approx(result.test["accuracy"])
    shown = run.task.predict(run.state.params, run.state.model_state, test["inputs"][:8], dict(run.state.hparams))
    assert np.array_equal(shown, shown.astype(jnp.bfloat16).astype(jnp.float32))  # the module's outputs were rounded
    assert evaluate(tmp_path)["test"] == {name: value for name, value in result.test.items() if name != "step"}


# The precision of products


PRECISIONS = {"default": None, "high": (jax.lax.Precision.HIGH,) * 2, "highest": (jax.lax.Precision.HIGHEST,) * 2}


@pytest.mark.parametrize("chosen", PRECISIONS)
def test_products_and_their_gradients_are_of_the_precision_that_was_chosen(chosen: str):
    before = jax.config.values["jax_default_matmul_precision"]
    for name in ("mlp", "cnn"):
        found = {product.params["precision"] for product in products(experiment("float32", chosen, name=name))}
        assert found == {PRECISIONS[chosen]}
    assert jax.config.values["jax_default_matmul_precision"] == before


def test_the_default_is_what_jax_was_told():
    found = experiment("float32", name="cnn")
    with jax.default_matmul_precision("highest"):
        assert {product.params["precision"] for product in products(found)} == {PRECISIONS["highest"]}


# As knobs


def test_what_shapes_the_program_tells_tasks_apart():
    info = experiment("float32").dataset.info
    configs = [
        resolve_config({}, {"train.precision": precision, "train.matmul_precision": chosen}).config
        for precision in ("float32", "bfloat16")
        for chosen in ("default", "highest")
    ]
    assert len({make_task(config, info) for config in configs}) == len(configs)
    assert len({digest(config) for config in configs}) == len(configs)
    assert make_task(configs[1], info) is make_task(resolve_config(configs[1], {"seed": 3}).config, info)


@pytest.mark.parametrize(
    ("key", "given", "allowed"),
    [
        ("train.precision", "bf16", "'float32', 'bfloat16', 'float64'"),
        ("train.precision", "float16", "'float32', 'bfloat16', 'float64'"),
        ("train.matmul_precision", "best", "'default', 'high', 'highest'"),
    ],
)
def test_other_words_are_refused(key: str, given: str, allowed: str):
    with pytest.raises(ConfigError) as found:
        resolve_config({}, {key: given})
    assert (found.value.key, found.value.got, found.value.expected) == (key, given, allowed)


def test_a_small_rate_of_dropout_is_kept_in_bfloat16():
    """1 - 0.001 is 1 in bfloat16."""
    ones = jnp.ones((1000, 1000), jnp.bfloat16)
    dropped = Dropout(0.001).apply({}, ones, True, rngs={"dropout": jax.random.key(0)})
    assert isinstance(dropped, jax.Array)
    assert dropped.dtype == jnp.bfloat16
    assert 500 < int((dropped == 0).sum()) < 1500
