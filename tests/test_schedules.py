import doctest
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.config.registry import BoundMember
from jaxtrain.optimizers.schedules import SCHEDULES, Schedule, constant
from jaxtrain.optimizers.schedules.cycles import cyclic, one_cycle, sgdr
from jaxtrain.optimizers.schedules.decays import (
    exponential,
    inverse_sqrt,
    linear_decay,
    piecewise,
    polynomial,
    step_decay,
    warmup_cosine,
    warmup_stable_decay,
)

TOTAL = 200
STEPS = np.arange(TOTAL + 1)


def of_optax(schedule):
    with jax.numpy_dtype_promotion("standard"):
        return jax.vmap(schedule)(STEPS)


def at_every_step(factor, **knobs):
    return jax.jit(jax.vmap(lambda step: factor(step, jnp.float32(TOTAL), **knobs)))(STEPS.astype(np.float32))


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("start", "end"), [(0.0, 0.0), (0.2, 0.05)])
def test_warmup_cosine_is_that_of_optax_at_every_step(warmup, start, end):
    schedule = optax.warmup_cosine_decay_schedule(3 * start, 3.0, int(warmup * TOTAL), TOTAL, 3 * end)
    np.testing.assert_allclose(
        3.0 * at_every_step(warmup_cosine, warmup=warmup, start=start, end=end), of_optax(schedule), atol=2e-6
    )


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.75])
@pytest.mark.parametrize(("div", "final_div"), [(25.0, 1e4), (10.0, 50.0)])
def test_one_cycle_is_cosine_onecycle_of_optax_at_every_step(warmup, div, final_div):
    schedule = optax.cosine_onecycle_schedule(TOTAL, 3.0, warmup, div, final_div)
    ours = at_every_step(one_cycle, warmup=warmup, start=1 / div, end=1 / (div * final_div))
    np.testing.assert_allclose(3.0 * ours, of_optax(schedule), atol=2e-6)


def test_one_cycle_takes_optax_defaults_from_its_own():
    np.testing.assert_allclose(
        at_every_step(one_cycle), of_optax(optax.cosine_onecycle_schedule(TOTAL, 1.0)), atol=1e-6
    )


def test_linear_one_cycle_is_linear_onecycle_of_optax_at_every_step():
    """Optax returns to the start at `pct_final`, then decays further; `pct_final` of 1 removes that third phase."""
    schedule = optax.linear_onecycle_schedule(
        TOTAL, 3.0, pct_start=0.3, pct_final=1.0, div_factor=20.0, final_div_factor=50.0
    )
    ours = at_every_step(one_cycle, warmup=0.3, start=1 / 20, end=1 / 50, anneal="linear")
    np.testing.assert_allclose(3.0 * ours, of_optax(schedule), atol=2e-6)


def published_cycle(iteration, stepsize, base, top, scale):
    """Computes the formulas of Smith (2017) in float64; cycles count from 1, `stepsize` is half a cycle."""
    cycle = math.floor(1 + iteration / (2 * stepsize))
    x = abs(iteration / stepsize - 2 * cycle + 1)
    return base + (top - base) * max(0.0, 1 - x) * scale(cycle, iteration)


@pytest.mark.parametrize(
    ("mode", "scale"),
    [
        ("triangular", lambda cycle, iteration: 1.0),
        ("triangular2", lambda cycle, iteration: 1 / 2 ** (cycle - 1)),
        ("exp_range", lambda cycle, iteration: 0.99**iteration),
    ],
)
@pytest.mark.parametrize("cycles", [1.0, 4.0, 3.3])
def test_cyclic_follows_the_published_formulas_at_every_step(mode, scale, cycles):
    expected = [published_cycle(step, TOTAL / (2 * cycles), 0.3, 3.0, scale) for step in STEPS]
    ours = 3.0 * at_every_step(cyclic, cycles=cycles, low=0.1, mode=mode, gamma=0.99)
    np.testing.assert_allclose(ours, expected, atol=2e-4)
    assert np.ptp(ours) > 0.9


WARMUPS = [(0.0, 0.0), (0.1, 0.2)]


def after_a_warmup(decay, warmup, start):
    """Joins optax's linear warm-up to one of its schedules, which counts from the end of the warm-up."""
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(start, 1.0, int(warmup * TOTAL)), decay], [int(warmup * TOTAL)])


@pytest.mark.parametrize(("warmup", "start"), WARMUPS)
@pytest.mark.parametrize("end", [0.0, 0.2])
def test_linear_is_that_of_optax_at_every_step(warmup, start, end):
    schedule = after_a_warmup(optax.linear_schedule(1.0, end, int((1 - warmup) * TOTAL)), warmup, start)
    ours = at_every_step(linear_decay, warmup=warmup, start=start, end=end)
    np.testing.assert_allclose(ours, of_optax(schedule), atol=2e-6)


@pytest.mark.parametrize(("warmup", "start"), WARMUPS)
@pytest.mark.parametrize(("power", "end"), [(2.0, 0.0), (0.9, 0.1), (1.0, 0.3)])
def test_polynomial_is_that_of_optax_at_every_step(warmup, start, power, end):
    schedule = after_a_warmup(optax.polynomial_schedule(1.0, end, power, int((1 - warmup) * TOTAL)), warmup, start)
    ours = at_every_step(polynomial, power=power, warmup=warmup, start=start, end=end)
    np.testing.assert_allclose(ours, of_optax(schedule), atol=2e-6)


@pytest.mark.parametrize(("warmup", "start"), WARMUPS)
def test_exponential_is_that_of_optax_at_every_step(warmup, start):
    schedule = after_a_warmup(optax.exponential_decay(1.0, int((1 - warmup) * TOTAL), 0.03), warmup, start)
    np.testing.assert_allclose(
        at_every_step(exponential, end=0.03, warmup=warmup, start=start), of_optax(schedule), atol=2e-6
    )


@pytest.mark.parametrize(("stages", "gamma"), [(4.0, 0.1), (5.0, 0.5), (1.0, 0.1)])
def test_step_is_the_staircase_of_optax_at_every_step(stages, gamma):
    schedule = optax.exponential_decay(1.0, int(TOTAL / stages), gamma, staircase=True)
    np.testing.assert_allclose(at_every_step(step_decay, stages=stages, gamma=gamma), of_optax(schedule), rtol=2e-6)


POINTS = {"first": 0.1, "first_scale": 0.5, "second": 0.35, "second_scale": 0.2, "third": 0.7, "third_scale": 3.0}
SCALES = {20: 0.5, 70: 0.2, 140: 3.0}


@pytest.mark.parametrize("between", ["constant", "linear", "cosine"])
def test_piecewise_is_that_of_optax_at_every_step(between):
    """Points that float32 cannot represent exactly, such as 0.35, still fall on the right step."""
    if between == "constant":
        schedule = optax.piecewise_constant_schedule(1.0, SCALES)
    else:
        schedule = optax.piecewise_interpolate_schedule(between, 1.0, SCALES)
    np.testing.assert_allclose(at_every_step(piecewise, between=between, **POINTS), of_optax(schedule), atol=2e-6)


@pytest.mark.parametrize(
    ("cycles", "multiplier", "total"), [(3, 2.0, 210), (4, 1.0, 200), (1, 2.0, 200), (2, 3.0, 200)]
)
def test_sgdr_is_that_of_optax_at_every_step(cycles, multiplier, total):
    """Cycles of 30, 60 and 120 steps fill a run of 210; each begins at 0.9 times the previous height."""
    first = total / sum(multiplier**i for i in range(cycles))
    each = [
        {"init_value": 0.9**i, "peak_value": 0.9**i, "decay_steps": round(first * multiplier**i)} for i in range(cycles)
    ]
    steps = np.arange(total, dtype=np.float32)
    schedule = optax.sgdr_schedule([cycle | {"warmup_steps": 0, "end_value": 0.05} for cycle in each])
    with jax.numpy_dtype_promotion("standard"):
        expected = jax.vmap(schedule)(np.arange(total))
    traced = jax.jit(
        jax.vmap(
            lambda step, m, s, e: sgdr(step, jnp.float32(total), cycles=cycles, multiplier=m, shrink=s, end=e),
            in_axes=(0, None, None, None),
        )
    )
    found = traced(steps, jnp.float32(multiplier), jnp.float32(0.9), jnp.float32(0.05))
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_inverse_sqrt_follows_the_published_formula_at_every_step():
    """min(step^-0.5, step warmup^-1.5), of Vaswani et al. (2017), over its peak at the end of the warm-up."""
    warmup = 20
    steps = np.maximum(STEPS, 1e-9)
    expected = np.minimum(steps**-0.5, STEPS * warmup**-1.5) * warmup**0.5
    np.testing.assert_allclose(at_every_step(inverse_sqrt, warmup=warmup / TOTAL), expected, atol=2e-6)


@pytest.mark.parametrize("shape", ["linear", "cosine", "root"])
@pytest.mark.parametrize("decay", [0.25, 0.0, 1.0])
def test_warmup_stable_decay_follows_the_published_formulas_at_every_step(shape, decay):
    """Hu et al. (2024), and 1 - root of Hägele et al. (2024), from 1 down to 0.1 after a warm-up of 20 steps."""
    begin = max(1 - decay, 0.1) * TOTAL  # a decay over the whole run begins after the warm-up
    part = np.clip((STEPS - begin) / (TOTAL - begin), 0, 1) if decay else np.zeros(TOTAL + 1)
    falls = {"linear": 1 - 0.9 * part, "cosine": 0.1 + 0.45 * (1 + np.cos(np.pi * part)), "root": 1 - 0.9 * part**0.5}
    expected = np.where(STEPS < 20, STEPS / 20, falls[shape])
    ours = at_every_step(warmup_stable_decay, warmup=0.1, decay=decay, end=0.1, shape=shape)
    np.testing.assert_allclose(ours, expected, atol=3e-6)


@pytest.mark.parametrize("name", SCHEDULES.members)
def test_the_example_of_every_schedule_runs(name):
    function = SCHEDULES.members[name]
    (found,) = doctest.DocTestFinder(recurse=False).find(function, globs={**function.__globals__, "jnp": jnp})
    assert found.examples, f"{name} shows no example"
    assert doctest.DocTestRunner().run(found).failed == 0


def test_constant_is_1():
    assert set(np.asarray(at_every_step(constant)).tolist()) == {1.0}


SHAPES = [(name, {}) for name in SCHEDULES.members] + [
    ("one_cycle", {"anneal": "linear"}),
    ("cyclic", {"mode": "triangular2"}),
    ("cyclic", {"mode": "exp_range"}),
    ("warmup_stable_decay", {"shape": "root"}),
    ("piecewise", {"between": "cosine"}),
]


@pytest.mark.parametrize(("name", "static"), SHAPES)
def test_every_schedule_takes_every_float_traced_and_the_length_of_the_run_too(name, static):
    factor = functools.partial(SCHEDULES.members[name], **static)
    knobs = {knob: found.default for knob, found in SCHEDULES.knobs(name).items() if found.is_traced(found.default)}
    lanes = {knob: jnp.array([value, 0.5 * value + 0.01], jnp.float32) for knob, value in knobs.items()}
    totals = jnp.array([50.0, 80.0])
    every = jax.vmap(lambda total, knobs: jax.vmap(lambda step: factor(step, total, **knobs))(jnp.arange(50.0)))
    traced = jax.jit(every)(totals, lanes)
    assert (traced.shape, traced.dtype) == ((2, 50), jnp.float32)
    assert np.isfinite(traced).all()
    for lane in (0, 1):
        given = {knob: float(values[lane]) for knob, values in lanes.items()}
        alone = [float(factor(jnp.float32(step), totals[lane], **given)) for step in (0, 7, 25, 49)]
        np.testing.assert_allclose(traced[lane, np.array([0, 7, 25, 49])], alone, atol=1e-5)


def entry(target, function, static=(), floats=()):
    return target, BoundMember(function, f"schedule.{target}", static, floats)


RATE, MOMENTUM = "optimizer.learning_rate", "optimizer.momentum"


def test_momentum_moves_against_the_rate():
    knobs = ("warmup", "start", "peak", "end")
    schedule = Schedule((entry(RATE, one_cycle), entry(MOMENTUM, one_cycle, (), knobs)))
    hparams = {"train.total_steps": 200.0, RATE: 0.5, MOMENTUM: 0.95}
    hparams |= {f"schedule.{MOMENTUM}.{knob}": v for knob, v in zip(knobs, (0.3, 1.0, 0.9, 1.0), strict=True)}
    hparams = {name: jnp.float32(value) for name, value in hparams.items()}
    applied = jax.vmap(lambda step: schedule(step, hparams))(jnp.arange(TOTAL))
    rate, momentum = applied[RATE], applied[MOMENTUM]
    assert np.argmax(rate) == np.argmin(momentum) == 60
    assert (np.sign(np.diff(rate)[10:-10]) == -np.sign(np.diff(momentum)[10:-10])).all()
    np.testing.assert_allclose([rate.max(), momentum.max(), momentum.min()], [0.5, 0.95, 0.855], rtol=1e-6)


def test_a_schedule_replaces_the_scheduled_entries_alone_and_names_them():
    schedule = Schedule((entry(RATE, warmup_cosine, (), ("warmup",)),))
    hparams = {"train.total_steps": 10.0, RATE: 0.4, "optimizer.b1": 0.9, f"schedule.{RATE}.warmup": 0.5}
    hparams = {name: jnp.float32(value) for name, value in hparams.items()}
    values = schedule(jnp.int32(1), hparams)
    assert schedule.targets == (RATE,)
    assert values[RATE] == pytest.approx(0.4 * 1 / 5)
    assert {name: values[name] for name in hparams if name != RATE} == {
        name: value for name, value in hparams.items() if name != RATE
    }
    assert hparams[RATE] == jnp.float32(0.4)
    assert Schedule()(jnp.int32(3), hparams) == hparams
