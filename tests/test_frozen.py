"""Frozen parameters: what a step does without them, lanes that hold them once, and low-rank adaptation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import Interrupting, outcome, tiny

from jaxtrain import Population, build, load_run, lr_range_test, run_search, train_and_evaluate
from jaxtrain.core.averaging import evaluation_weights
from jaxtrain.core.frozen import join_params, split_params
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import leaf_digests, named_leaves, state_digest
from jaxtrain.errors import ConfigError, UsageError
from jaxtrain.parallel.mesh import compile_init, compile_train_call, device_mesh
from jaxtrain.storage.checkpoint_files import Manifest, read_leaves
from jaxtrain.tasks.lora import LoRA
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.runners import make_runner
from jaxtrain.training.shared_frozen import shares_frozen

BODY = {"optimizer.frozen": "Dense_[01]", "model.hidden": (32, 16), "train.ema": None}
LORA = {"lora.paths": "Dense_0/kernel|Dense_1", "lora.rank": 2, "train.ema": None}
STEPS = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with the layers of BODY, whose weights others start from."""
    directory = tmp_path_factory.mktemp("runs") / "source"
    train_and_evaluate(tiny({"model.hidden": (32, 16)}), directory, quiet=True)
    return directory


def weights(tree: object) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in named_leaves(tree)}


def solo(found: Experiment, seed: int, rate: float, steps: int = STEPS):
    mesh = device_mesh(1)
    hparams = {**found.hparams, "optimizer.learning_rate": np.float32(rate)}
    state = compile_init(found.rules, mesh)(jax.random.key(seed), found.example, hparams)
    return jax.device_get(
        compile_train_call(found.rules, mesh, "mesh")(state, found.batches(0, steps, steps), steps)[0]
    )


def test_parameters_are_split_and_joined_at_any_leaf():
    params = {"a": {"w": jnp.ones(2), "b": jnp.zeros(1)}, "c": jnp.ones(3)}
    mask = {"a": {"w": True, "b": False}, "c": False}
    trained, frozen = split_params(params, mask)
    assert weights(trained).keys() == {"a/b", "c"}
    assert weights(frozen).keys() == {"a/w"}
    assert weights(join_params(trained, frozen)).keys() == weights(params).keys()
    assert join_params(params, None) is params


def test_a_step_leaves_frozen_parameters_and_moves_the_others_as_if_it_knew_them_as_constants():
    found = build(tiny({**BODY, "optimizer.name": "sgd", "optimizer.momentum": None, "model.dropout": None}))
    state = found.init()
    batch = found.batches(0, 1, 1).take(0)
    stepped, metrics = jax.jit(lambda state: train_step(state, batch, rules=found.rules))(state)
    inputs = (np.asarray(batch["inputs"]).reshape(64, -1) - np.asarray(found.dataset.info.input_mean)) / np.asarray(
        found.dataset.info.input_std
    ) if found.dataset.info.is_raw else np.asarray(batch["inputs"]).reshape(64, -1)  # fmt: skip
    body = state.frozen
    hidden = inputs
    for name in ("Dense_0", "Dense_1"):
        hidden = np.maximum(hidden @ np.asarray(body[name]["kernel"]) + np.asarray(body[name]["bias"]), 0.0)

    def loss(head):
        logits = hidden @ head["kernel"] + head["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean()

    with jax.numpy_rank_promotion("allow"):
        value, gradient = jax.value_and_grad(loss)(state.params["Dense_2"])
    rate = found.rules.schedule(state.step, state.hparams)["optimizer.learning_rate"]
    np.testing.assert_allclose(metrics["loss"].result(), value, rtol=1e-5)
    for name in ("kernel", "bias"):
        moved = np.asarray(state.params["Dense_2"][name]) - float(rate) * np.asarray(gradient[name])
        np.testing.assert_allclose(stepped.params["Dense_2"][name], moved, rtol=1e-4, atol=1e-7)
    jax.tree.map(np.testing.assert_array_equal, stepped.frozen, state.frozen)
    assert weights(state.opt_state).keys() == weights(stepped.opt_state).keys()
    assert not any("Dense_0" in path for path in weights(state.opt_state)), "frozen parameters have no optimizer state"


def test_nothing_left_to_train_is_refused():
    with pytest.raises(
        ConfigError, match=r"optimizer\.frozen: got 'Dense'; expected a pattern that leaves a parameter"
    ):
        build(tiny({"optimizer.frozen": "Dense"}))


@pytest.mark.unfused
def test_lanes_that_share_the_frozen_parameters_are_their_solo_runs_to_the_bit():
    found = build(tiny(BODY))
    rates = np.asarray([1e-3, 1e-2, 3e-2], np.float32)
    hparams = {**found.hparams, "optimizer.learning_rate": rates}
    population = Population(found.rules, found.mesh, lanes=3, share_frozen=shares_frozen(found, [0]))
    assert population.share_frozen
    states, _ = population.call(population.init(0, hparams, found.example), found.batches(0, STEPS, STEPS), STEPS)
    digests = [state_digest(population.fetch_lane(states, lane)) for lane in range(3)]
    assert digests == [state_digest(solo(found, 0, rate)) for rate in rates]
    assert len(set(digests)) == 3
    smaller, kept = population.gather(states, [2])
    assert state_digest(smaller.fetch_lane(kept, 0)) == digests[2]
    placed = population.place(population.fetch(states))
    assert [state_digest(population.fetch_lane(placed, lane)) for lane in range(3)] == digests


def test_lanes_that_share_need_a_tenth_of_the_memory():
    found = build(tiny({**BODY, "model.hidden": (1024, 256)}))
    batches = found.batches(0, STEPS, STEPS)
    planned = [
        Population(found.rules, found.mesh, 64, share_frozen=share).plan_bytes(found.hparams, batches)
        for share in (False, True)
    ]
    assert planned[1] < planned[0] / 10


@pytest.mark.parametrize(
    ("given", "seeds", "shared"),
    [
        ({}, [0], False),
        (BODY, [3], True),
        (BODY, [0, 1], False),
        ({**BODY, "checkpoint.init_from": "elsewhere"}, [0, 1], True),
        ({**BODY, "checkpoint.init_from": "elsewhere", "checkpoint.init_except": "Dense_2"}, [0, 1], True),
        ({**BODY, "checkpoint.init_from": "elsewhere", "checkpoint.init_except": "Dense_1/bias"}, [0, 1], False),
    ],
)
def test_lanes_share_what_is_equal_in_all_of_them(given, seeds, shared):
    assert shares_frozen(build(tiny(given)), seeds) is shared


def test_frozen_weights_that_a_float_shapes_are_not_shared():
    given = {**BODY, "task.name": f"{__name__}:scaled", "optimizer.frozen": "0"}
    assert not shares_frozen(build(tiny(given)), [0])


def scaled(model, loss, info, spread: float = 0.1):
    """A task whose initial weights depend on a float."""
    from jaxtrain import pytree_task

    def make(values, key):
        first, second = jax.random.split(key)
        return [spread * jax.random.normal(first, (64, 8)), jax.random.normal(second, (8, 10))]

    return pytree_task(make, lambda w, x, key, train: x.reshape(len(x), -1) @ w[0] @ w[1], loss)


@pytest.mark.unfused
@pytest.mark.parametrize("given", [BODY, LORA])
def test_seeds_that_start_from_another_run_share_and_resume(source, tmp_path, given):
    given = {**given, "model.hidden": (32, 16), "checkpoint.init_from": str(source), "train.seeds": 2}
    given["checkpoint.result"] = "last"
    config = tiny({**given, "parallel.width": 1})
    train_and_evaluate(config, tmp_path / "whole", quiet=True)
    train_and_evaluate(config, tmp_path / "parts", quiet=True, trackers=[Interrupting(20)])
    train_and_evaluate(config, tmp_path / "parts", quiet=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    train_and_evaluate(tiny({**given, "train.seeds": 1}), tmp_path / "solo", quiet=True)
    first = load_run(tmp_path / "whole", seed=0).state
    assert state_digest(first) == state_digest(load_run(tmp_path / "solo").state)


def test_a_search_and_a_range_test_over_adapters_train_them_alone(source, tmp_path):
    given = {**LORA, "model.hidden": (32, 16), "checkpoint.init_from": str(source), "train.duration": "12 steps"}
    searched = tiny({**given, "search.space.optimizer.learning_rate": ("log_uniform", 1e-4, 1e-2)})
    searched["search"] |= {"trials": 3, "compare_seeds": 2}
    assert run_search(searched, tmp_path, quiet=True).status == "done"
    config = tiny({**given, "lr_range.rates": 5, "lr_range.seeds": 2, "lr_range.steps": "8 steps"})
    assert np.isfinite(lr_range_test(config, quiet=True).losses).any()


def test_adapters_start_at_nothing_and_are_the_only_ones_that_move(source, tmp_path):
    given = {**LORA, "model.hidden": (32, 16), "checkpoint.init_from": str(source), "optimizer.learning_rate": 0.01}
    base = load_run(source)
    images = np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1)).astype(np.float32)
    train_and_evaluate(tiny({**given, "train.duration": "30 steps"}), tmp_path, quiet=True)
    adapted = load_run(tmp_path)
    before, _ = evaluation_weights(base.state)
    jax.tree.map(np.testing.assert_array_equal, adapted.state.frozen["base"], before)
    adapters = adapted.state.params["lora"]
    assert adapters.keys() == {"Dense_0/kernel", "Dense_1/kernel"}, "biases have no two axes"
    assert adapters["Dense_0/kernel"]["down"].shape == (64, 2)
    merged = weights(before)
    for path, pair in adapters.items():
        assert np.asarray(pair["up"]).any()
        merged[path] = merged[path] + 16.0 / 2 * np.asarray(pair["down"]) @ np.asarray(pair["up"])
    hidden = np.asarray(adapted.info.normalise(images)).reshape(5, -1)
    for layer in range(3):
        hidden = hidden @ merged[f"Dense_{layer}/kernel"] + merged[f"Dense_{layer}/bias"]
        hidden = np.maximum(hidden, 0.0) if layer < 2 else hidden
    np.testing.assert_allclose(adapted.predict(images), hidden, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapted_again", [False, True])
def test_a_run_starts_from_an_adapted_one_where_that_ended(source, tmp_path, adapted_again):
    given = {**LORA, "model.hidden": (32, 16), "checkpoint.init_from": str(source), "train.ema": 0.9}
    train_and_evaluate(tiny({**given, "lora.alpha": 7.0, "train.duration": "20 steps"}), tmp_path / "first", quiet=True)
    first = load_run(tmp_path / "first")
    config = tiny(
        {**(given if adapted_again else {"model.hidden": (32, 16)}), "checkpoint.init_from": str(first.workdir)}
    )
    found = build(config)
    state = make_runner(found, train_step).init()
    images = np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1)).astype(np.float32)
    predicted = found.rules.task.predict(*evaluation_weights(state), first.info.prepare(images), state.hparams)
    np.testing.assert_allclose(first.predict(images), predicted, rtol=1e-4, atol=1e-4)
    assert not np.allclose(first.predict(images), load_run(source).predict(images), atol=1e-2)


def test_adapters_of_a_fresh_task_change_nothing():
    task = build(tiny(LORA)).rules.task
    plain = build(tiny({"train.ema": None})).rules.task
    found = build(tiny(LORA))
    values = found.rules.schedule(jnp.zeros((), jnp.int32), found.hparams)
    params, state = task.init(jax.random.key(0), found.example, values)
    own, _ = plain.init(jax.random.key(0), found.example, values)
    jax.tree.map(np.testing.assert_array_equal, params["base"], own)
    inputs = found.example["inputs"]
    np.testing.assert_array_equal(
        task.predict(params, state, inputs, values), plain.predict(own, state, inputs, values)
    )


def test_the_strength_of_the_adapters_is_an_input_of_the_program():
    found = build(tiny(LORA))
    assert found.hparams["lora.alpha"] == 16.0
    assert found.rules == build(tiny({**LORA, "lora.alpha": 4.0})).rules


@pytest.mark.parametrize(
    ("paths", "message"),
    [("Conv", r"lora\.paths: got 'Conv'; expected a pattern that matches one of"), ("bias", r"two axes or more")],
)
def test_adapters_without_a_weight_are_refused(paths, message):
    with pytest.raises(ConfigError, match=message):
        build(tiny({**LORA, "lora.paths": paths}))


def test_merging_adds_a_product_to_a_kernel_of_any_rank():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    pair = {"down": rng.normal(size=(18, 2)).astype(np.float32), "up": rng.normal(size=(2, 4)).astype(np.float32)}
    params = {"base": {"kernel": kernel}, "lora": {"kernel": pair}}
    merged = LoRA("kernel", 2).merge(params, {"lora.alpha": np.float32(6.0)})
    expected = kernel + 3.0 * np.einsum("hwir,ro->hwio", pair["down"].reshape(3, 3, 2, 2), pair["up"])
    np.testing.assert_allclose(merged["kernel"], expected, rtol=1e-5)


def test_a_state_of_an_earlier_version_says_why_it_does_not_fit(tmp_path):
    """Then frozen parameters lay among the others."""
    experiment = build(tiny(BODY))
    state = experiment.init()
    whole = state.replace(params=join_params(state.params, state.frozen), frozen=None)
    manifest = Manifest(leaf_digests(jax.device_get(whole)), {}, {})
    with pytest.raises(
        UsageError, match=r"got a run whose frozen parameters lie among the others, as in earlier versions"
    ):
        read_leaves(tmp_path, manifest, state)
    with pytest.raises(UsageError, match=r"got a state that does not fit this run \(params/Dense_0/bias: missing"):
        read_leaves(tmp_path, Manifest(leaf_digests(jax.device_get(state)), {}, {}), whole)
