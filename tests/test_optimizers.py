import doctest
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.config.registry import resolve
from jaxtrain.core.averaging import schedule_free_average
from jaxtrain.errors import ConfigError
from jaxtrain.optimizers import OPTIMIZERS, Optimizer
from jaxtrain.optimizers.wrappers import is_decayed

STEPS = 50
PARAMS: Any = {
    "dense": {"kernel": jnp.array([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.5]]), "bias": jnp.array([0.2, -0.4])},
    "norm": {"scale": jnp.array([1.0, 1.2])},
}
INPUTS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
TARGETS = np.random.default_rng(1).normal(size=(16, 2)).astype(np.float32)
DECAYED = {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}

RATES = {"learning_rate": 0.1}
CASES = {
    "sgd": ("sgd", RATES | {"momentum": None}, lambda learning_rate: optax.sgd(learning_rate)),
    "momentum": ("sgd", RATES | {"momentum": 0.9}, optax.sgd),
    "nesterov": ("sgd", RATES | {"momentum": 0.8, "nesterov": True}, functools.partial(optax.sgd, nesterov=True)),
    "sgd_decay": (
        "sgd",
        RATES | {"momentum": 0.9, "weight_decay": 0.1},
        lambda learning_rate, momentum, weight_decay: optax.chain(
            optax.add_decayed_weights(weight_decay, mask=DECAYED), optax.sgd(learning_rate, momentum)
        ),
    ),
    "adam": ("adam", {"learning_rate": 0.02, "b1": 0.8, "b2": 0.99, "eps": 1e-6}, optax.adam),
    "adamw": (
        "adamw",
        {"learning_rate": 0.02, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.1},
        functools.partial(optax.adamw, mask=DECAYED),
    ),
    "clip": (
        "sgd",
        RATES | {"momentum": 0.9, "clip_norm": 0.1},
        lambda learning_rate, momentum, clip_norm: optax.chain(
            optax.clip_by_global_norm(clip_norm), optax.sgd(learning_rate, momentum)
        ),
    ),
    "clip_value": (
        "sgd",
        RATES | {"momentum": 0.9, "clip_value": 0.05},
        lambda learning_rate, momentum, clip_value: optax.chain(
            optax.clip(clip_value), optax.sgd(learning_rate, momentum)
        ),
    ),
    "clip_adaptive": (
        "sgd",
        RATES | {"momentum": 0.9, "clip_adaptive": 0.05},
        lambda learning_rate, momentum, clip_adaptive: optax.chain(
            optax.adaptive_grad_clip(clip_adaptive), optax.sgd(learning_rate, momentum)
        ),
    ),
    "frozen_scaled": (
        "adamw",
        {"learning_rate": 0.02, "frozen": "^norm", "scaled": "kernel$", "scaled_by": 0.3, "clip_norm": 0.1},
        lambda learning_rate, b1, b2, eps, weight_decay, clip_norm, scaled_by: optax.chain(
            optax.partition(
                {"seen": optax.clip_by_global_norm(clip_norm), "frozen": optax.set_to_zero()},
                {"dense": "seen", "norm": "frozen"},
            ),
            optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=DECAYED),
            optax.masked(optax.scale(scaled_by), DECAYED),
        ),
    ),
    "rmsprop": ("rmsprop", {"learning_rate": 0.002, "decay": 0.8, "eps": 1e-6}, optax.rmsprop),
    "rmsprop_centered": (
        "rmsprop",
        {"learning_rate": 0.002, "momentum": 0.8, "centered": True, "nesterov": True},
        functools.partial(optax.rmsprop, centered=True, nesterov=True),
    ),
    "adagrad": ("adagrad", RATES | {"initial_accumulator_value": 0.2, "eps": 1e-6}, optax.adagrad),
    "adadelta": (
        "adadelta",
        {"learning_rate": 1.0, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.1},
        functools.partial(optax.adadelta, weight_decay_mask=DECAYED),
    ),
    "nadam": ("nadam", {"learning_rate": 0.02, "b1": 0.8, "b2": 0.99}, optax.nadam),
    "radam": ("radam", {"learning_rate": 0.05, "b1": 0.8, "b2": 0.99, "threshold": 5.0}, optax.radam),
    "adabelief": ("adabelief", {"learning_rate": 0.02, "b1": 0.8, "b2": 0.99, "eps": 1e-12}, optax.adabelief),
    "amsgrad": ("amsgrad", {"learning_rate": 0.02, "b1": 0.8, "b2": 0.9}, optax.amsgrad),
    "yogi": ("yogi", {"learning_rate": 0.02, "b1": 0.8, "b2": 0.99}, optax.yogi),
    "lion": (
        "lion",
        {"learning_rate": 0.02, "b1": 0.9, "b2": 0.95, "weight_decay": 0.1},
        functools.partial(optax.lion, mask=DECAYED),
    ),
    "lamb": (
        "lamb",
        {"learning_rate": 0.02, "b1": 0.8, "b2": 0.99, "weight_decay": 0.1},
        functools.partial(optax.lamb, mask=DECAYED),
    ),
    "lars": (
        "lars",
        {"learning_rate": 0.3, "momentum": 0.8, "weight_decay": 0.1, "trust_coefficient": 0.02, "eps": 1e-6},
        functools.partial(optax.lars, weight_decay_mask=DECAYED, trust_ratio_mask=DECAYED),
    ),
    "adafactor": (
        "adafactor",
        {"learning_rate": 0.02, "decay_rate": 0.7, "momentum": 0.5, "weight_decay": 0.01, "min_dim_size_to_factor": 2},
        lambda weight_decay, **floats: optax.adafactor(
            **floats, min_dim_size_to_factor=2, weight_decay_rate=weight_decay, weight_decay_mask=DECAYED
        ),
    ),
    "adan": (
        "adan",
        {"learning_rate": 0.02, "b1": 0.9, "weight_decay": 0.1},
        functools.partial(optax.adan, mask=DECAYED),
    ),
    "muon": (
        "muon",
        {"learning_rate": 0.05, "beta": 0.9, "adam_b1": 0.8, "adam_learning_rate": 0.01, "weight_decay": 0.1},
        optax.contrib.muon,  # its decay applies to matrices only, like that of DECAYED
    ),
    "schedule_free_sgd": (
        "schedule_free_sgd",
        {"learning_rate": 0.5, "b1": 0.8, "weight_decay": 0.1, "weight_lr_power": 1.5},
        lambda learning_rate, weight_decay, b1, weight_lr_power: optax.contrib.schedule_free(
            optax.chain(optax.add_decayed_weights(weight_decay, mask=DECAYED), optax.sgd(learning_rate)),
            learning_rate,
            b1=b1,
            weight_lr_power=weight_lr_power,
        ),
    ),
    "schedule_free_adamw": (
        "schedule_free_adamw",
        {"learning_rate": 0.02, "b1": 0.8, "b2": 0.99, "eps": 1e-6},
        optax.contrib.schedule_free_adamw,
    ),
    "of_optax": ("optax:novograd", {"learning_rate": 0.01, "weight_decay": 0.1}, optax.novograd),
}


def test_every_member_of_the_table_is_compared_here():
    """Rprop, which is not optax's, is compared with NumPy in tests/test_rprop.py."""
    assert set(OPTIMIZERS.members) == {name for name, _, _ in CASES.values() if ":" not in name} | {"rprop"}


def bound(section):
    return Optimizer(OPTIMIZERS.bind(section), OPTIMIZERS.bind_common(section))


def resolved(name, given):
    return {"name": name} | resolve(OPTIMIZERS.knobs(name), given, "optimizer")


def floats_of(section):
    return {f"optimizer.{name}": value for name, value in section.items() if isinstance(value, float)}


def loss(params):
    outputs = (
        jnp.tanh(INPUTS @ params["dense"]["kernel"] + params["dense"]["bias"][None]) * params["norm"]["scale"][None]
    )
    return jnp.square(outputs - TARGETS).mean()


def update(optimizer, gradients, state, params=PARAMS) -> Any:
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        return optimizer.update(gradients, state, params)


def trajectory(optimizer, initial=PARAMS, steps=STEPS) -> Any:
    """Returns the parameters after each step; `optimizer` is rebuilt for each, as in a training step."""

    def step(carry, _):
        params, state = carry
        updates, state = update(optimizer(), jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (initial, optimizer().init(initial)), length=steps)[1]


@pytest.mark.one_fast_of(4)
@pytest.mark.parametrize("case", CASES)
def test_every_optimizer_is_that_of_optax_with_all_its_floats_traced_under_vmap(case):
    """Two lanes that differ in every float, each compared with optax on Python numbers: 50 steps within 2e-5.

    Rounding of float32 betas, where optax has float64, is amplified by Muon's iteration: 20 steps within 1e-3.
    """
    name, given, plain = CASES[case]
    section = resolved(name, given)
    lanes = {key: jnp.array([value, 0.9 * value], jnp.float32) for key, value in floats_of(section).items()}
    traced = jax.jit(jax.vmap(lambda values: trajectory(lambda: bound(section)(values))))(lanes)
    steps, tolerance = (20, 1e-3) if case == "muon" else (STEPS, 2e-5)
    for lane, part in enumerate((1.0, 0.9)):
        knobs = {key.removeprefix("optimizer."): part * value for key, value in floats_of(section).items()}
        expected = jax.jit(lambda knobs=knobs: trajectory(lambda: plain(**knobs)))()
        for ours, theirs in zip(jax.tree.leaves(traced), jax.tree.leaves(expected), strict=True):
            assert np.isfinite(ours).all()
            np.testing.assert_allclose(ours[lane, :steps], theirs[:steps], atol=tolerance)


@pytest.mark.parametrize("case", ["adamw", "sgd_decay"])
def test_weight_decay_spares_biases_and_norms(case):
    name, given, _ = CASES[case]
    section = resolved(name, given)
    optimizer = bound(section)(floats_of(section))
    updates, _ = update(optimizer, jax.tree.map(jnp.zeros_like, PARAMS), optimizer.init(PARAMS))
    np.testing.assert_allclose(
        updates["dense"]["kernel"], -PARAMS["dense"]["kernel"] * given["learning_rate"] * 0.1, rtol=1e-5
    )
    assert not updates["dense"]["bias"].any()
    assert not updates["norm"]["scale"].any()
    assert is_decayed(PARAMS) == DECAYED


def test_clipping_bounds_the_norm_of_what_any_optimizer_sees_and_spares_small_gradients():
    section = resolved("sgd", {"learning_rate": 1.0, "momentum": None, "clip_norm": 2.0})
    optimizer = bound(section)({"optimizer.learning_rate": 1.0, "optimizer.clip_norm": jnp.float32(2.0)})
    for gradient, expected in ((30.0, 2.0), (0.5, 0.5)):
        gradients = {"a": jnp.array([gradient, 0.0]), "b": jnp.zeros(1)}
        updates, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
        assert optax.tree.norm(updates) == pytest.approx(expected)


def one_update(name, given, gradients, params) -> Any:
    """Returns the first updates of a member with these knobs."""
    section = resolved(name, {"learning_rate": 0.1} | given)
    optimizer = bound(section)(floats_of(section))
    return update(optimizer, gradients, optimizer.init(params), params)[0]


def test_clips_apply_in_the_order_value_norm_adaptive():
    gradients, weights = {"a": jnp.array([30.0]), "b": jnp.array([4.0])}, {"a": jnp.array([1.0]), "b": jnp.array([9.0])}
    given = {"learning_rate": 1.0, "momentum": None, "clip_value": 3.0, "clip_norm": 2.0, "clip_adaptive": 1.0}
    updates = one_update("sgd", given, gradients, weights)
    np.testing.assert_allclose(updates["a"], [-1.0], rtol=1e-6)  # 3, then the square root of 2, then its weight
    np.testing.assert_allclose(updates["b"], [-np.sqrt(2.0)], rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS.members)
def test_frozen_parameters_stay_and_have_no_state_whatever_the_optimizer(name):
    section = resolved(name, {"learning_rate": 0.1, "frozen": "^dense/k|norm"})
    make = functools.partial(bound(section), floats_of(section))
    moved = trajectory(make, steps=3)
    np.testing.assert_array_equal(moved["dense"]["kernel"][-1], PARAMS["dense"]["kernel"])
    np.testing.assert_array_equal(moved["norm"]["scale"][-1], PARAMS["norm"]["scale"])
    assert (moved["dense"]["bias"][-1] != PARAMS["dense"]["bias"]).all()
    shapes = {leaf.shape for leaf in jax.tree.leaves(make().init(PARAMS))}
    assert PARAMS["dense"]["kernel"].shape not in shapes


def test_scaled_parameters_step_at_a_rate_of_their_own():
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    updates = one_update("adam", {"scaled": "bias|norm/", "scaled_by": 0.25}, gradients, PARAMS)
    means = [float(leaf.mean()) for leaf in (updates["dense"]["kernel"], updates["dense"]["bias"])]
    np.testing.assert_allclose([*means, updates["norm"]["scale"][0]], [-0.1, -0.025, -0.025], rtol=1e-5)


DECAYING = [name for name in OPTIMIZERS.members if "decayed" in OPTIMIZERS.knobs(name)]


@pytest.mark.parametrize("name", DECAYING)
def test_decay_applies_where_the_pattern_says_whatever_the_optimizer(name):
    """With the same gradients, updates with and without decay differ only in the parameters that match."""
    gradients = jax.tree.map(lambda leaf: 0.1 + 0.3 * jnp.arange(float(leaf.size)).reshape(leaf.shape), PARAMS)
    for pattern, decayed in (
        (None, DECAYED),
        ("bias", {"dense": {"kernel": False, "bias": True}, "norm": {"scale": False}}),
    ):
        given = {"decayed": pattern} | ({"momentum": None} if name == "adafactor" else {})
        without, with_decay = (one_update(name, given | {"weight_decay": d}, gradients, PARAMS) for d in (0.0, 0.5))
        moved = jax.tree.map(lambda one, other: bool((one != other).any()), without, with_decay)
        assert moved == decayed


def test_every_member_with_decay_can_be_told_what_decays():
    assert [name for name in OPTIMIZERS.members if "weight_decay" in OPTIMIZERS.knobs(name)] == DECAYING


@pytest.mark.parametrize("knob", ["frozen", "scaled", "decayed"])
def test_a_pattern_that_matches_nothing_is_refused_with_the_paths_there_are(knob):
    given = {knob: "Dense_9"} | ({"scaled_by": 0.5} if knob == "scaled" else {})
    with pytest.raises(ConfigError) as error:
        jax.jit(lambda params: one_update("adamw", given, params, params))(PARAMS)
    assert (error.value.key, error.value.got) == (f"optimizer.{knob}", "Dense_9")
    assert "dense/bias, dense/kernel, norm/scale" in error.value.expected


@pytest.mark.parametrize("knob", ["frozen", "scaled", "decayed"])
def test_what_is_no_regular_expression_is_refused_before_anything_runs(knob):
    with pytest.raises(ConfigError, match=rf"optimizer\.{knob}: got '\('; expected str or None, a regular expression"):
        resolved("adamw", {"learning_rate": 0.1, knob: "("})


@pytest.mark.parametrize("given", [{"scaled": "bias"}, {"scaled_by": 0.5}])
def test_a_scale_without_its_pattern_and_a_pattern_without_its_scale_are_refused(given):
    with pytest.raises(ConfigError, match=r"both optimizer\.scaled and optimizer\.scaled_by"):
        one_update("sgd", given, PARAMS, PARAMS)


def test_muon_decays_at_its_rate_what_adam_moves_too():
    """Includes a kernel with three axes, which the weight decay of optax's Muon would leave out."""
    params = {"conv": jnp.full((2, 2, 2), 4.0), "matrix": jnp.full((2, 2), 4.0)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates = one_update("muon", {"weight_decay": 0.5, "adam_learning_rate": 1e-3}, zeros, params)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, jnp.full(leaf.shape, -0.1 * 0.5 * 4.0), rtol=1e-6)


@pytest.mark.parametrize("name", [*OPTIMIZERS.members, "wrapper"])
def test_the_example_of_every_member_runs(name):
    function: Any = OPTIMIZERS.members.get(name, OPTIMIZERS.common)
    (found,) = doctest.DocTestFinder(recurse=False).find(function, globs={**function.__globals__, "jnp": jnp})
    assert found.examples, f"{name} shows no example"
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        assert doctest.DocTestRunner().run(found).failed == 0


def test_optimizers_that_differ_in_floats_alone_are_equal_and_hash_alike():
    one, other = (bound(resolved("adamw", {"learning_rate": rate})) for rate in (0.1, 0.2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != bound(resolved("adamw", {"learning_rate": 0.1, "clip_norm": 1.0}))
    assert one != bound(resolved("adam", {"learning_rate": 0.1}))


FREE = ["schedule_free_sgd", "schedule_free_adamw"]


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("wrapper", [{}, {"clip_norm": 0.5, "frozen": "norm"}])
def test_the_average_of_a_schedule_free_optimizer_is_that_of_its_definition(name, wrapper):
    """At a constant rate x is the mean of all z, which follows gradients at y; frozen parameters do not change."""
    section = resolved(name, {"learning_rate": 0.1, "weight_decay": 0.0, "b1": 0.7} | wrapper)
    optimizer = bound(section)(floats_of(section))
    params, state, descents = PARAMS, optimizer.init(PARAMS), []
    x: Any = None
    for _ in range(5):
        updates, state = update(optimizer, jax.grad(loss)(params), state, params)
        params: Any = optax.apply_updates(params, updates)
        x = schedule_free_average(state, params)
        z = jax.tree.map(lambda y, x: (y - 0.7 * x) / (1 - 0.7), params, x)
        descents.append(z["dense"]["kernel"])
        np.testing.assert_allclose(x["dense"]["kernel"], jnp.stack(descents).mean(axis=0), atol=2e-5)
    assert (x["dense"]["kernel"] != params["dense"]["kernel"]).any()
    assert ("frozen" in wrapper) == bool((x["norm"]["scale"] == PARAMS["norm"]["scale"]).all())


@pytest.mark.parametrize("name", FREE)
def test_a_schedule_free_optimizer_refuses_what_would_spoil_its_average(name):
    with pytest.raises(ConfigError, match=r"optimizer\.scaled: got 'bias'"):
        one_update(f"optax:contrib.{name}", {"scaled": "bias", "scaled_by": 0.5}, PARAMS, PARAMS)
    with pytest.raises(ConfigError, match=r"optimizer\.scaled: got 'bias'; expected None with a schedule-free"):
        one_update(name, {"scaled": "bias", "scaled_by": 0.5}, PARAMS, PARAMS)
    assert OPTIMIZERS.knobs(name)["b1"].once_per_run


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS.members if name not in FREE])
def test_the_parameters_of_any_other_optimizer_are_its_own(name):
    section = resolved(name, {"learning_rate": 0.1})
    assert schedule_free_average(bound(section)(floats_of(section)).init(PARAMS), PARAMS) is PARAMS
