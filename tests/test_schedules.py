import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.families import Bound
from jaxtrain.schedules import SCHEDULES, Schedule, constant, cyclic, one_cycle, warmup_cosine

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
    """Optax goes back to the start at `pct_final` and then further down; at 1 there is no such third part."""
    schedule = optax.linear_onecycle_schedule(
        TOTAL, 3.0, pct_start=0.3, pct_final=1.0, div_factor=20.0, final_div_factor=50.0
    )
    ours = at_every_step(one_cycle, warmup=0.3, start=1 / 20, end=1 / 50, anneal="linear")
    np.testing.assert_allclose(3.0 * ours, of_optax(schedule), atol=2e-6)


def published_cycle(iteration, stepsize, base, top, scale):
    """The formulas of Smith (2017), in float64: cycles are counted from 1, `stepsize` is half a cycle."""
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


def test_constant_is_1():
    assert set(np.asarray(at_every_step(constant)).tolist()) == {1.0}


SHAPES = [(name, {}) for name in SCHEDULES.members] + [
    ("one_cycle", {"anneal": "linear"}),
    ("cyclic", {"mode": "triangular2"}),
    ("cyclic", {"mode": "exp_range"}),
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
    return target, Bound(function, f"schedule.{target}", static, floats)


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
